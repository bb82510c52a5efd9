// A minivit checkpoint, read from its bytes (format: https://github.com/huggingface/safetensors):
// 8 bytes with the header's length, the header as JSON, then the numbers of all tensors.

// {description, tensors: {name: {shape, length, read(array)}}}; `read` writes 32-bit floats into an array.
// Throws an Error of one sentence where the bytes are no such file.
function readCheckpoint(buffer) {
  if (buffer.byteLength < 8) throw new Error("the file is too short for a .safetensors");
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (length > Math.min(buffer.byteLength - 8, 1e8)) throw new Error("the file is no whole .safetensors");
  let header, description;
  try {
    header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    description = JSON.parse(header.__metadata__.minivit);
  } catch {
    throw new Error("this is no checkpoint of minivit: convert it first, python -m weights_convert FILE");
  }
  if (description.version !== 1 || description.architecture !== "VisionTransformer") {
    throw new Error(`the file holds a ${description.architecture}, and this page runs a VisionTransformer`);
  }
  const tensors = {};
  for (const name of Object.keys(header).filter((key) => key !== "__metadata__")) {
    const { dtype, shape, data_offsets: [from, to] } = header[name];
    const count = shape.reduce((product, side) => product * side, 1);
    const size = { F32: 4, F16: 2 }[dtype];
    if (!size) throw new Error(`${name} is stored as ${dtype}: save the model in float32 or float16`);
    if (to - from !== count * size || 8 + length + to > buffer.byteLength) {
      throw new Error(`${name} is cut off: copy or download the file again`);
    }
    const bytes = buffer.slice(8 + length + from, 8 + length + to);           // a start of its own, at a multiple of 4
    tensors[name] = {
      shape,
      length: count,
      read: (out) => size === 4 ? out.set(new Float32Array(bytes)) : halvesToFloats(new Uint16Array(bytes), out),
    };
  }
  return { description, tensors };
}

// 16-bit floats to 32-bit ones, by a table of all 65,536.
function halvesToFloats(halves, out) {
  if (!halvesToFloats.table) {
    const table = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits++) {
      const exponent = (bits >> 10) & 31, fraction = bits & 1023;
      const size = exponent === 0 ? fraction * 2 ** -24
        : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15);
      table[bits] = bits & 32768 ? -size : size;
    }
    halvesToFloats.table = table;
  }
  const { table } = halvesToFloats;
  for (let k = 0; k < halves.length; k++) out[k] = table[halves[k]];
}

// A model whose tensors lie in the memory of a kernel, and the arena that its passes use: room for pictures of
// twice the patches that the model was made for.
function openModel(description, tensors, kernelBytes) {
  const { config } = description, grid = config.image_size.map((side, k) => side / config.patch_size[k]);
  const seen = description.preprocess.image_size.map((side, k) => Math.floor(side / config.patch_size[k]));
  const numTokens = numPrefixTokens(config) + 2 * Math.max(seen[0] * seen[1], Math.min(grid[0] * grid[1], 600));
  const reason = refusal(config);
  if (reason) throw new Error(reason);
  let numFloats = roomFor(config, numTokens);
  for (const { length } of Object.values(tensors)) numFloats += upToFour(length);
  const kernel = openKernel(kernelBytes, numFloats);
  const arena = new Arena(kernel, numFloats);
  const { labels, preprocess } = description;
  const model = { config, numTokens, labels, preprocess, kernel, tensors: {} };
  for (const [name, tensor] of Object.entries(tensors)) {
    model.tensors[name] = arena.take(tensor.length);
    tensor.read(model.tensors[name]);
  }
  return { model, arena };
}
