// Matrix products, the one thing in a Vision Transformer that takes time.
//
//   out[i][o] = Σ_k x[i][k] · weight[o][k] + bias[o]        x (n, inner), weight (outer, inner)
//
// Weights lie as torch.nn.Linear keeps them, so that both factors are read along their rows. In plain
// JavaScript two rows of x meet four of the weight at a time: each number that was read is used four or
// two times. The same is done four numbers at a time by the WebAssembly of kernel.wat, where there is one.
// Arrays are Float32Array everywhere: a function that has met one kind of array stays fast and right.

const PLAIN = { name: "JavaScript", memory: null, linear: linearPlain };

function linearPlain(out, x, weight, bias, n, inner, outer) {
  const tiledRows = n - (n % 2);
  const tiledColumns = outer - (outer % 4);
  for (let i = 0; i < tiledRows; i += 2) {
    const x0 = i * inner, x1 = x0 + inner;
    for (let o = 0; o < tiledColumns; o += 4) {
      const w0 = o * inner, w1 = w0 + inner, w2 = w1 + inner, w3 = w2 + inner;
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      for (let k = 0; k < inner; k++) {
        const a = x[x0 + k], b = x[x1 + k];
        const p = weight[w0 + k], q = weight[w1 + k], r = weight[w2 + k], s = weight[w3 + k];
        s00 += a * p; s01 += a * q; s02 += a * r; s03 += a * s;
        s10 += b * p; s11 += b * q; s12 += b * r; s13 += b * s;
      }
      const at = i * outer + o;
      out[at] = s00; out[at + 1] = s01; out[at + 2] = s02; out[at + 3] = s03;
      out[at + outer] = s10; out[at + outer + 1] = s11; out[at + outer + 2] = s12; out[at + outer + 3] = s13;
    }
  }
  for (let i = 0; i < n; i++) {
    for (let o = i < tiledRows ? tiledColumns : 0; o < outer; o++) {
      let sum = 0;
      for (let k = 0; k < inner; k++) sum += x[i * inner + k] * weight[o * inner + k];
      out[i * outer + o] = sum;
    }
  }
  if (bias) addToRows(out, bias, n, outer);
}

function addToRows(out, bias, n, outer) {
  for (let i = 0; i < n; i++) {
    for (let o = 0; o < outer; o++) out[i * outer + o] += bias[o];
  }
}

// The kernel of kernel.wat, or PLAIN where the browser refuses WebAssembly or computes something else.
// `bytes` is the compiled module; memory is taken once, since views of it die when it grows.
function openKernel(bytes, numFloats) {
  if (!bytes || typeof WebAssembly === "undefined") return PLAIN;
  try {
    const memory = new WebAssembly.Memory({ initial: Math.ceil((numFloats * 4 + 64) / 65536) });
    const module = new WebAssembly.Module(bytes);
    const { linear } = new WebAssembly.Instance(module, { page: { memory } }).exports;
    const kernel = {
      name: "WebAssembly",
      memory,
      linear(out, x, weight, bias, n, inner, outer) {
        linear(out.byteOffset, x.byteOffset, weight.byteOffset, n, inner, outer);
        if (bias) addToRows(out, bias, n, outer);
      },
    };
    return agreesWithPlain(kernel) ? kernel : PLAIN;
  } catch {
    return PLAIN;
  }
}

// A small product of odd sizes, by both ways.
function agreesWithPlain(kernel) {
  const n = 3, inner = 8, outer = 7;
  const room = new Arena(kernel, n * inner + outer * inner + n * outer + 16);
  const x = room.take(n * inner), weight = room.take(outer * inner), out = room.take(n * outer);
  for (let k = 0; k < x.length; k++) x[k] = Math.sin(k);
  for (let k = 0; k < weight.length; k++) weight[k] = Math.cos(3 * k);
  const expected = new Float32Array(n * outer);
  linearPlain(expected, x, weight, null, n, inner, outer);
  kernel.linear(out, x, weight, null, n, inner, outer);
  return expected.every((value, k) => Math.abs(value - out[k]) < 1e-5);
}

// One piece of memory that arrays are cut from, each at a whole number of 16 bytes: what a kernel of four
// numbers at a time wants, and the only memory that WebAssembly sees.
class Arena {
  constructor(kernel, numFloats) {
    this.buffer = kernel.memory ? kernel.memory.buffer : new ArrayBuffer(numFloats * 4 + 64);
    this.used = 0;
  }

  take(length) {
    const array = new Float32Array(this.buffer, this.used, length);
    this.used += Math.ceil(length / 4) * 16;
    return array;
  }

  // What was taken after `mark` is free again.
  mark() {
    return this.used;
  }

  release(mark) {
    this.used = mark;
  }
}
