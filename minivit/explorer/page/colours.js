// From numbers to colours. The first table is cividis' kind: dark blue to yellow, the same to readers who do
// not tell red from green; each is given by a few colours between which is drawn straight.

const COLOURS = {
  "blue to yellow": ["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"],
  "dark to bright": ["#000004", "#420a68", "#932667", "#dd513a", "#fca50a", "#fcffa4"],
  "grey": ["#000000", "#ffffff"],
};
const SIGNED_COLOURS = ["#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b"];

// 256 colours as bytes (256, 3).
function colourTable(stops) {
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const table = new Uint8Array(768);
  for (let k = 0; k < 256; k++) {
    const place = k / 255 * (rgb.length - 1), low = Math.min(Math.floor(place), rgb.length - 2);
    for (let c = 0; c < 3; c++) {
      table[3 * k + c] = Math.round(rgb[low][c] + (place - low) * (rgb[low + 1][c] - rgb[low][c]));
    }
  }
  return table;
}

// {low, high} of the values that are numbers; a signed map is even around 0.
function rangeOf(values, signed) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return { low: 0, high: 0 };
  const reach = Math.max(Math.abs(low), Math.abs(high));
  return signed ? { low: -reach, high: reach } : { low: Math.min(low, 0), high };
}

// A canvas of one pixel a cell; cells that are NaN, patches that are not there, stay clear.
function mapCanvas(values, [rows, cols], range, table) {
  const canvas = new OffscreenCanvas(cols, rows), context = canvas.getContext("2d");
  const image = context.createImageData(cols, rows);
  const width = range.high - range.low || 1;
  for (let k = 0; k < rows * cols; k++) {
    if (Number.isNaN(values[k])) continue;
    const at = 3 * Math.round(255 * Math.min(1, Math.max(0, (values[k] - range.low) / width)));
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = table[at + c];
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Draws a map over all of a context's canvas, or from its left and top to its right and bottom, whose sides are
// whole multiples of the grid's: every cell then covers its own pixels and no other.
function drawMap(context, map, smooth, box = [0, 0, context.canvas.width, context.canvas.height]) {
  const [left, top, right, bottom] = box;
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(map, left, top, right - left, bottom - top);
}

function tableFor(state, signed) {
  return colourTable(signed ? SIGNED_COLOURS : COLOURS[state.colours]);
}
