// The picture with the map over it, and the place that is chosen.

// A canvas of the picture's pixels times a whole number, so that patches lie on whole pixels.
function drawPicture(view) {
  const { picture, grid, values, state, signed } = view;
  const canvas = document.querySelector("#stage canvas"), context = canvas.getContext("2d");
  const scale = Math.max(1, Math.round(720 / Math.max(...picture.size)));
  canvas.width = picture.size[0] * scale;
  canvas.height = picture.size[1] * scale;
  context.imageSmoothingEnabled = scale < 3;
  context.drawImage(view.image, 0, 0, canvas.width, canvas.height);

  const range = rangeOf(values, signed), table = tableFor(state, signed);
  context.globalAlpha = state.opacity / 100;
  drawMap(context, mapCanvas(values, grid, range, table), state.smooth);
  context.globalAlpha = 1;
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
  drawLegend(range, table);
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

// Three digits that say something: 0.0123, 1.2e-5.
function number(value) {
  if (value === 0) return "0";
  return Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4 ? value.toExponential(1) : value.toPrecision(3);
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

// What the pointer is on: row, column, the number there, and how many times an even share it is.
function readPlace(view, place) {
  const value = view.values[place];
  const where = `row ${Math.floor(place / view.grid[1])}, column ${place % view.grid[1]}`;
  if (Number.isNaN(value)) return `${where}: removed`;
  const times = view.isAttention ? `, ${(value * view.numTokens).toFixed(value * view.numTokens < 10 ? 2 : 0)} × even` : "";
  return `${where}: ${number(value)}${times}`;
}
