// How alike the position embedding of the chosen place is to all others, on the grid that was trained.

function drawPlaces(view) {
  const { page, state, place } = view, section = document.getElementById("places");
  section.hidden = !page.positions && !page.positionTable;
  if (section.hidden) return;
  const { image_size: size, patch_size: patch } = page.config;
  const grid = [size[0] / patch[0], size[1] / patch[1]];
  const hint = section.querySelector(".hint"), canvas = section.querySelector("canvas");
  canvas.hidden = place < 0;
  if (place < 0) {
    hint.textContent = "This token has no place: choose a patch.";
    return;
  }
  // The same place on the trained grid, where the picture's is another.
  const row = Math.floor((Math.floor(place / view.grid[1]) + 0.5) * grid[0] / view.grid[0]);
  const col = Math.floor((place % view.grid[1] + 0.5) * grid[1] / view.grid[1]);
  const count = grid[0] * grid[1], values = cosines(page, row * grid[1] + col, count);
  const cell = Math.max(1, Math.floor(240 / Math.max(...grid)));
  canvas.width = grid[1] * cell;
  canvas.height = grid[0] * cell;
  drawMap(canvas.getContext("2d"), mapCanvas(values, grid, { low: -1, high: 1 }, tableFor(state, true)), false);
  const isOwn = grid[0] === view.grid[0] && grid[1] === view.grid[1];
  const where = `row ${row}, column ${col}${isOwn ? "" : ` of the trained ${grid[0]} × ${grid[1]}`}`;
  hint.textContent = `Cosine of the position embedding of ${where} to all ${count}; blue -1, red 1.`;
}

// Cosines of one place's embedding to all: those that were stored, or of the running model's table.
function cosines(page, place, count) {
  if (page.positions) {
    const row = arrayOf(page.positions).subarray(place * count, (place + 1) * count);
    return Float32Array.from(row, (value) => value / 127);
  }
  const { dim } = page.config, table = page.positionTable.subarray(page.positionTable.length - count * dim);
  const product = (a, b) => {
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += table[a * dim + d] * table[b * dim + d];
    return sum;
  };
  return Float32Array.from({ length: count }, (_, other) => (
    product(place, other) / Math.sqrt(product(place, place) * product(other, other))));
}
