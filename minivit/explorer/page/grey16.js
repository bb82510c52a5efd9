// PNGs of 16-bit grey, which a browser cuts to its upper 8 bits; `open_image` rounds level / 257.
//
// Format: https://www.w3.org/TR/png-3/. A row is a filter's number and bytes; each byte is a difference to
// what the filter makes of its neighbours: a to the left, b above, c above to the left.

const PNG_SIGNATURE = "137,80,78,71,13,10,26,10";

// The picture in a file's bytes, or null where they are no such PNG: the browser then reads them.
async function readGrey16(bytes) {
  if (bytes.length < 29 || String(bytes.subarray(0, 8)) !== PNG_SIGNATURE) return null;
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = data.getUint32(16), height = data.getUint32(20);
  const [depth, kind, , , interlaced] = bytes.subarray(24, 29);
  if (depth !== 16 || kind !== 0 || interlaced) return null;
  const packed = [];
  let clear = -1;
  for (let at = 8; at + 12 <= bytes.length; at += 12 + data.getUint32(at)) {
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (name === "eXIf") return null;                     // the browser turns it
    if (name === "tRNS") clear = data.getUint16(at + 8);
    if (name === "IDAT") packed.push(bytes.subarray(at + 8, at + 8 + data.getUint32(at)));
  }
  const rows = unfilter(await inflate(packed), width, height);
  const pixels = new Uint8Array(3 * width * height);
  for (let k = 0; k < width * height; k++) {
    const level = rows[2 * k] * 256 + rows[2 * k + 1];
    pixels.fill(level === clear ? 255 : Math.round(level / 257), 3 * k, 3 * k + 3);
  }
  return { pixels, width, height, channels: 3 };
}

async function inflate(pieces) {
  const stream = new Blob(pieces).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Bytes of all rows without filters; a pixel is two bytes.
function unfilter(filtered, width, height) {
  const length = 2 * width, out = new Uint8Array(length * height);
  if (filtered.length < (length + 1) * height) throw new Error("the picture is cut off");
  for (let y = 0; y < height; y++) {
    const filter = filtered[y * (length + 1)];
    for (let x = 0; x < length; x++) {
      const at = y * length + x;
      const a = x > 1 ? out[at - 2] : 0, b = y ? out[at - length] : 0, c = x > 1 && y ? out[at - length - 2] : 0;
      const guess = [0, a, b, (a + b) >> 1, nearest(a, b, c)][filter];
      out[at] = filtered[y * (length + 1) + 1 + x] + guess;
    }
  }
  return out;
}

// Of the three neighbours the one nearest to a + b - c, by Paeth.
function nearest(a, b, c) {
  const toA = Math.abs(b - c), toB = Math.abs(a - c), toC = Math.abs(a + b - 2 * c);
  return toA <= toB && toA <= toC ? a : toB <= toC ? b : c;
}
