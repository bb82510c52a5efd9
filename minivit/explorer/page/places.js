// How alike the position embedding of the chosen place is to all others, on the grid that was trained.

function drawPlaces(view) {
  const { page, state } = view, section = document.getElementById("places");
  section.hidden = !page.positions;
  if (!page.positions) return;
  const { image_size: size, patch_size: patch } = page.config;
  const grid = [size[0] / patch[0], size[1] / patch[1]];
  const hint = section.querySelector(".hint"), canvas = section.querySelector("canvas");
  const place = placeOf(view, state.token);
  canvas.hidden = place < 0;
  if (place < 0) {
    hint.textContent = "This token has no place: choose a patch.";
    return;
  }
  // The same place on the trained grid, where the picture's is another.
  const row = Math.floor((Math.floor(place / view.grid[1]) + 0.5) * grid[0] / view.grid[0]);
  const col = Math.floor((place % view.grid[1] + 0.5) * grid[1] / view.grid[1]);
  const count = grid[0] * grid[1], start = (row * grid[1] + col) * count;
  const values = Float32Array.from(arrayOf(page.positions).subarray(start, start + count), (value) => value / 127);
  const cell = Math.max(1, Math.floor(240 / Math.max(...grid)));
  canvas.width = grid[1] * cell;
  canvas.height = grid[0] * cell;
  drawMap(canvas.getContext("2d"), mapCanvas(values, grid, { low: -1, high: 1 }, tableFor(state, true)), false);
  hint.textContent = `Cosine of the position embedding of row ${row}, column ${col} to all ${count}; blue -1, red 1.`;
}
