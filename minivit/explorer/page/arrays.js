// The arrays that the page holds as text, decoded when they are looked at.

const KINDS = { float32: Float32Array, int16: Int16Array, int8: Int8Array, uint8: Uint8Array, float16: Uint16Array };
const decoded = new Map();

// The typed array of a reference in the document; of float16 the bits.
function arrayOf(reference) {
  if (!decoded.has(reference.array)) decoded.set(reference.array, decode(reference));
  return decoded.get(reference.array);
}

function decode({ array, dtype, bytes, crc }) {
  const out = new Uint8Array(bytes);
  let at = 0;
  for (const element of document.querySelectorAll(`script[data-array="${array}"]`)) {
    const piece = fromBase64(element.textContent);
    if (at + piece.length > bytes) break;
    out.set(piece, at);
    at += piece.length;
    element.remove();                                   // the text is not needed again
  }
  if (at !== bytes || crc32(out) !== crc) throw new Error("this page is damaged: copy or make it again");
  return new KINDS[dtype](out.buffer);
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text), out = new Uint8Array(binary.length);
  for (let k = 0; k < out.length; k++) out[k] = binary.charCodeAt(k);
  return out;
}

// The checksum of PNG and gzip (ISO 3309).
function crc32(bytes) {
  if (!crc32.table) {
    crc32.table = Uint32Array.from({ length: 256 }, (_, n) => {
      for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
      return n;
    });
  }
  const { table } = crc32;
  let crc = 0xffffffff;
  for (let k = 0; k < bytes.length; k++) crc = table[(crc ^ bytes[k]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
