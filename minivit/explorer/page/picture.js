// The picture with the map over it, and the place that is chosen.

// A canvas of the picture's pixels times a whole number, so that patches lie on whole pixels.
function drawPicture(view) {
  const { grid, values, state, signed } = view, range = view.range || rangeOf(values, signed);
  const canvas = document.querySelector("#stage canvas"), context = canvas.getContext("2d");
  paintPicture(canvas, { ...view, range, shades: view.shades || values });
  if (view.place >= 0) outline(context, grid, view.place, "#fff");
  if (tools.held !== null) outline(context, grid, tools.held, "#fee838");
  drawLegend(range, tableFor(state, signed), view.ends);
}

function paintPicture(canvas, view) {
  const { picture, state, signed, range } = view, { values, grid, box } = reachTheEdges(view.shades, view);
  const context = canvas.getContext("2d");
  let scale = Math.max(1, Math.round(720 / Math.max(...picture.size)));
  if (box.some((edge) => edge * scale % 1)) scale++;     // cells that begin on half a pixel
  canvas.width = picture.size[0] * scale;
  canvas.height = picture.size[1] * scale;
  drawPatches(context, view, scale < 3);
  context.globalAlpha = state.opacity / 100;
  const map = mapCanvas(values, grid, range, tableFor(state, signed));
  drawMap(context, map, state.smooth, box.map((edge) => edge * scale));
  context.globalAlpha = 1;
}

// The patches that the model sees, each where it stands; where none is, a dashed frame.
function drawPatches(context, { image, picture, grid, patches }, smooth) {
  const { width, height } = context.canvas;
  context.imageSmoothingEnabled = smooth;
  if (!patches || (patches.length === grid[0] * grid[1] && patches.every(([patch, place]) => patch === place))) {
    context.drawImage(image, 0, 0, width, height);
    return;
  }
  const wide = picture.size[0] / grid[1], high = picture.size[1] / grid[0], scale = width / picture.size[0];
  const corner = (place) => [(place % grid[1]) * wide, Math.floor(place / grid[1]) * high];
  for (const [patch, place] of patches) {
    const [x, y] = corner(patch), [left, top] = corner(place);
    context.drawImage(image, x, y, wide, high, left * scale, top * scale, wide * scale, high * scale);
  }
  const filled = new Set(patches.map(([, place]) => place));
  context.strokeStyle = "#888";
  context.lineWidth = 2;
  context.setLineDash([4, 4]);
  for (let place = 0; place < grid[0] * grid[1]; place++) {
    const [left, top] = corner(place);
    if (!filled.has(place)) context.strokeRect(left * scale + 3, top * scale + 3, wide * scale - 6, high * scale - 6);
  }
  context.setLineDash([]);
}

function outline(context, grid, place, inner) {
  const wide = context.canvas.width / grid[1], high = context.canvas.height / grid[0];
  const x = (place % grid[1]) * wide, y = Math.floor(place / grid[1]) * high;
  for (const [colour, width] of [["#000", 5], [inner, 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(x + 1, y + 1, wide - 2, high - 2);
  }
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

// The place on the grid of a token, -1 for one beside the picture.
function placeOf(view, token) {
  return token < view.numPrefix ? -1 : view.places[token - view.numPrefix];
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
