// The picture with the map over it, and the place that is chosen.

// A canvas of the picture's pixels times a whole number, so that patches lie on whole pixels.
function drawPicture(view) {
  const { grid, values, state, signed } = view, range = view.range || rangeOf(values, signed);
  const canvas = document.querySelector("#stage canvas"), context = canvas.getContext("2d");
  paintPicture(canvas, { ...view, range, shades: view.shades || values });
  const place = placeOf(view, state.token);
  if (place >= 0) {
    const wide = canvas.width / grid[1], high = canvas.height / grid[0];
    const x = (place % grid[1]) * wide, y = Math.floor(place / grid[1]) * high;
    for (const [colour, width] of [["#000", 5], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(x + 1, y + 1, wide - 2, high - 2);
    }
  }
  drawLegend(range, tableFor(state, signed), view.ends);
}

function paintPicture(canvas, view) {
  const { picture, state, signed, range } = view, { values, grid, box } = reachTheEdges(view.shades, view);
  const context = canvas.getContext("2d");
  let scale = Math.max(1, Math.round(720 / Math.max(...picture.size)));
  if (box.some((edge) => edge * scale % 1)) scale++;     // cells that begin on half a pixel
  canvas.width = picture.size[0] * scale;
  canvas.height = picture.size[1] * scale;
  context.imageSmoothingEnabled = scale < 3;
  context.drawImage(view.image, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = state.opacity / 100;
  const map = mapCanvas(values, grid, range, tableFor(state, signed));
  drawMap(context, map, state.smooth, box.map((edge) => edge * scale));
  context.globalAlpha = 1;
}

// Where the grid of cells lies, [left, top, right, bottom] in pixels of the picture: patches tile all of it, the
// cells of a ResNet reach over its left and upper edge.
function boxOf({ picture, box }) {
  return box || [0, 0, ...picture.size];
}

// Gives the strips that a ResNet's grid leaves free on the right and below to their nearest cells: its cells are
// centred on pixels, the last ones end half a cell before the edge, and the network saw it all.
function reachTheEdges(values, view) {
  const [rows, cols] = view.grid, [left, top, right, bottom] = boxOf(view), [width, height] = view.picture.size;
  const wide = (right - left) / cols, high = (bottom - top) / rows;
  const moreCols = left < -wide / 4 && width > right && width - right < wide / 2 ? 1 : 0;
  const moreRows = top < -high / 4 && height > bottom && height - bottom < high / 2 ? 1 : 0;
  const grid = [rows + moreRows, cols + moreCols], out = new Float32Array(grid[0] * grid[1]);
  for (let k = 0; k < out.length; k++) {
    const row = Math.min(rows - 1, Math.floor(k / grid[1])), col = Math.min(cols - 1, k % grid[1]);
    out[k] = values[row * cols + col];
  }
  return { values: out, grid, box: [left, top, right + moreCols * wide, bottom + moreRows * high] };
}

function drawLegend(range, table, ends = [number(range.low), number(range.high)]) {
  const canvas = document.querySelector("#legend canvas"), context = canvas.getContext("2d");
  for (let k = 0; k < 256; k++) {
    context.fillStyle = `rgb(${table[3 * k]} ${table[3 * k + 1]} ${table[3 * k + 2]})`;
    context.fillRect(k, 0, 1, canvas.height);
  }
  document.getElementById("lowest").textContent = ends[0];
  document.getElementById("highest").textContent = ends[1];
}

// Three digits that say something: 0.0123, 1.2e-5.
function number(value) {
  if (value === 0) return "0";
  return Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4 ? value.toExponential(1) : value.toPrecision(3);
}

// The place on the grid of a token, -1 for one beside the picture, as a word of a caption is.
function placeOf(view, token) {
  return view.caption || token < view.numPrefix ? -1 : view.places[token - view.numPrefix];
}

// The place under a pointer, or -1.
function placeUnder(view, event) {
  const canvas = document.querySelector("#stage canvas").getBoundingClientRect();
  const x = (event.clientX - canvas.left) / canvas.width, y = (event.clientY - canvas.top) / canvas.height;
  if (x < 0 || y < 0 || x >= 1 || y >= 1) return -1;
  const [rows, cols] = view.grid, [left, top, right, bottom] = boxOf(view), [width, height] = view.picture.size;
  const col = Math.floor((x * width - left) / (right - left) * cols);
  const row = Math.floor((y * height - top) / (bottom - top) * rows);
  return Math.min(row, rows - 1) * cols + Math.min(col, cols - 1);   // a strip beside the grid is its nearest cell's
}

// What the pointer is on: row, column, the number there, and how many times an even share it is.
function readPlace(view, place) {
  if (view.caption) return readCell(view, place);
  const value = view.values[place];
  const where = `row ${Math.floor(place / view.grid[1])}, column ${place % view.grid[1]}`;
  if (Number.isNaN(value)) return `${where}: removed`;
  const times = view.isAttention ? `, ${(value * view.numTokens).toFixed(value * view.numTokens < 10 ? 2 : 0)} × even` : "";
  return `${where}: ${number(value)}${times}`;
}
