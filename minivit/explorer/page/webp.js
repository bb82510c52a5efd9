// How a WebP file says it is turned, which Chromium does not look at, while it does for JPEG and PNG.
//
// A WebP is a RIFF file: chunks of a name, a length and bytes; EXIF is a TIFF header whose tag 0x0112 is a
// number from 1 to 8 (https://developers.google.com/speed/webp/docs/riff_container).

// The orientation in a file's bytes; 1, upright, where there is none.
function webpOrientation(bytes) {
  const text = (at, count) => String.fromCharCode(...bytes.subarray(at, at + count));
  if (text(0, 4) !== "RIFF" || text(8, 4) !== "WEBP") return 1;
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 12; at + 8 <= bytes.length;) {
    const length = data.getUint32(at + 4, true);
    if (text(at, 4) === "EXIF") {
      const start = at + 8 + (text(at + 8, 4) === "Exif" ? 6 : 0);
      return orientationOf(new DataView(bytes.buffer, bytes.byteOffset + start, at + 8 + length - start));
    }
    at += 8 + length + length % 2;
  }
  return 1;
}

function orientationOf(tiff) {
  try {
    const little = tiff.getUint16(0) === 0x4949, first = tiff.getUint32(4, little);
    for (let entry = 0; entry < tiff.getUint16(first, little); entry++) {
      const at = first + 2 + 12 * entry;
      if (tiff.getUint16(at, little) === 0x0112) return tiff.getUint16(at + 8, little);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;      // damaged EXIF is no reason to refuse a photo
  }
  return 1;
}

// The picture upright. Orientations are a mirror image (2, 4, 5, 7) that is then turned.
function upright(picture, orientation) {
  const [mirrored, flipped, turned] = {
    2: [1, 0, 0], 3: [1, 1, 0], 4: [0, 1, 0], 5: [0, 0, 1], 6: [0, 1, 1], 7: [1, 1, 1], 8: [1, 0, 1],
  }[orientation] || [0, 0, 0];
  const { pixels, width, height, channels } = picture, out = new Uint8Array(pixels.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (flipped ? height - 1 - y : y) * width + (mirrored ? width - 1 - x : x);
      for (let c = 0; c < channels; c++) out[(y * width + x) * channels + c] = pixels[from * channels + c];
    }
  }
  const whole = { pixels: out, width, height, channels };
  return turned ? turn(whole) : whole;
}

// Whether this browser turns a WebP by itself: one of 1 × 2 pixels that says it lies on its side, as Pillow
// writes it, tells.
async function turnsWebp() {
  if (turnsWebp.answer === undefined) {
    const bitmap = await createImageBitmap(new Blob([fromBase64(SIDEWAYS)], { type: "image/webp" }));
    turnsWebp.answer = bitmap.width === 2;
  }
  return turnsWebp.answer;
}

const SIDEWAYS = "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAAAAAQAAVlA4TA4AAAAvAEAAAAcQEf0P"
  + "RET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA=";
