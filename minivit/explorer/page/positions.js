// Position embeddings for the grid of a picture, as in minivit/embeddings.py.

// {position, numPlaced}: rows of D numbers, those of `numPlaced` prefix tokens first.
function positions(model, grid) {
  const { config, tensors } = model;
  if (config.pos_embed === "sine") return { position: sinePositions(grid, config.dim), numPlaced: 0 };
  const table = tensors.pos_embed, { dim } = config;
  const own = [config.image_size[0] / config.patch_size[0], config.image_size[1] / config.patch_size[1]];
  const numPlaced = table.length / dim - own[0] * own[1];
  if (own[0] === grid[0] && own[1] === grid[1]) return { position: table, numPlaced };
  const prefix = table.subarray(0, numPlaced * dim);
  const patches = table.subarray(numPlaced * dim);
  const rows = stretched(own[0], grid[0], config), cols = stretched(own[1], grid[1], config);
  const position = new Float32Array((numPlaced + grid[0] * grid[1]) * dim);
  position.set(prefix);
  // Across, then down: (rows, cols, D) -> (rows, new cols, D) -> (new rows, new cols, D)
  const across = new Float32Array(own[0] * grid[1] * dim);
  for (let y = 0; y < own[0]; y++) {
    cols.forEach((samples, x) => {
      for (const [from, weight] of samples) {
        const to = (y * grid[1] + x) * dim, at = (y * own[1] + from) * dim;
        for (let d = 0; d < dim; d++) across[to + d] += weight * patches[at + d];
      }
    });
  }
  rows.forEach((samples, y) => {
    for (const [from, weight] of samples) {
      for (let k = 0; k < grid[1] * dim; k++) {
        position[numPlaced * dim + y * grid[1] * dim + k] += weight * across[from * grid[1] * dim + k];
      }
    }
  });
  return { position, numPlaced };
}

// For each new place the old ones that it is made of, [[number, weight], …]: bicubic interpolation as in
// torch's `interpolate`. Keys' cubic with a = -3/4, over four neighbours, those beyond the border being the
// border's; with antialias a = -1/2, over a support that widens where the grid shrinks, cut at the border.
function stretched(old, count, config) {
  const step = old / (count + config.pos_embed_offset);
  return Array.from({ length: count }, (_, place) => {
    const centre = (place + 0.5) * step;
    const samples = [];
    if (config.pos_embed_antialias) {
      const wide = Math.max(step, 1), from = Math.max(0, Math.trunc(centre - 2 * wide + 0.5));
      const to = Math.min(old, Math.trunc(centre + 2 * wide + 0.5));
      for (let k = from; k < to; k++) samples.push([k, cubic((k - centre + 0.5) / wide, -0.5)]);
      const sum = samples.reduce((total, [, weight]) => total + weight, 0);
      return samples.map(([k, weight]) => [k, weight / sum]);
    }
    const first = Math.floor(centre - 0.5);
    for (let k = first - 1; k <= first + 2; k++) {
      samples.push([Math.min(old - 1, Math.max(0, k)), cubic(k - centre + 0.5, -0.75)]);
    }
    return samples;
  });
}

// Keys 1981, "Cubic convolution interpolation for digital image processing", equation 15 for any a.
function cubic(x, a) {
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  if (t < 2) return (((t - 5) * t + 8) * t - 4) * a;
  return 0;
}

// A quarter of the channels each for sin x, cos x, sin y, cos y (arXiv:2205.01580).
function sinePositions(grid, dim) {
  const quarter = dim / 4, table = new Float32Array(grid[0] * grid[1] * dim);
  for (let place = 0; place < grid[0] * grid[1]; place++) {
    const y = Math.floor(place / grid[1]), x = place % grid[1];
    for (let k = 0; k < quarter; k++) {
      const omega = Math.exp(-Math.log(10000) * k / (quarter - 1));
      [Math.sin(x * omega), Math.cos(x * omega), Math.sin(y * omega), Math.cos(y * omega)]
        .forEach((value, part) => { table[place * dim + part * quarter + k] = value; });
    }
  }
  return table;
}
