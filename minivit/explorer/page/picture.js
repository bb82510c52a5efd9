// The picture with the map over it, and the place that is chosen.

// A canvas of the picture's pixels times a whole number, so that patches lie on whole pixels.
function drawPicture(view) {
  const { picture, grid, values, state, signed } = view;
  const canvas = document.querySelector("#stage canvas"), context = canvas.getContext("2d");
  const scale = Math.max(1, Math.round(720 / Math.max(...picture.size)));
  canvas.width = picture.size[0] * scale;
  canvas.height = picture.size[1] * scale;
  drawPatches(context, view, scale < 3);

  const range = rangeOf(values, signed), table = tableFor(state, signed);
  context.globalAlpha = state.opacity / 100;
  drawMap(context, mapCanvas(values, grid, range, table), state.smooth);
  context.globalAlpha = 1;
  if (view.place >= 0) outline(context, grid, view.place, "#fff");
  if (tools.held !== null) outline(context, grid, tools.held, "#fee838");
  drawLegend(range, table);
}

// The patches that the model sees, each where it stands; where none is, nothing is drawn.
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

function drawLegend(range, table) {
  const canvas = document.querySelector("#legend canvas"), context = canvas.getContext("2d");
  for (let k = 0; k < 256; k++) {
    context.fillStyle = `rgb(${table[3 * k]} ${table[3 * k + 1]} ${table[3 * k + 2]})`;
    context.fillRect(k, 0, 1, canvas.height);
  }
  document.getElementById("lowest").textContent = number(range.low);
  document.getElementById("highest").textContent = number(range.high);
}

// The place on the grid of a token, -1 for one beside the picture.
function placeOf(view, token) {
  return token < view.numPrefix ? -1 : view.places[token - view.numPrefix];
}

// The place under a pointer, or -1.
function placeUnder(view, event) {
  const box = document.querySelector("#stage canvas").getBoundingClientRect();
  const col = Math.floor((event.clientX - box.left) / box.width * view.grid[1]);
  const row = Math.floor((event.clientY - box.top) / box.height * view.grid[0]);
  const inside = col >= 0 && row >= 0 && col < view.grid[1] && row < view.grid[0];
  return inside ? row * view.grid[1] + col : -1;
}
