// The forward pass of a Vision Transformer, as in minivit/vit.py:
//
//   z₀  = [x_class; x¹E; …; xᴺE] + E_pos        z'ₗ = MSA(LN(zₗ₋₁)) + zₗ₋₁        zₗ = MLP(LN(z'ₗ)) + z'ₗ
//
// A model is {config, tensors, kernel}: the config and the names of a minivit checkpoint, its tensors as
// Float32Arrays. Token arrays are (N, D), one row a token; (N, D) stands beside what changes a shape.

// Why this page cannot run a model, or null.
function refusal(config) {
  if (config.head_blocks > 1) return `the head sees ${config.head_blocks} blocks, which this page does not compute`;
  for (const side of [config.dim, config.hidden_dim, config.dim / config.num_heads, patchLength(config)]) {
    if (side % 4) return `its widths are no multiples of 4 (${side}), which this page does not compute`;
  }
  return null;
}

function patchLength(config) {
  return config.in_channels * config.patch_size[0] * config.patch_size[1];
}

function numPrefixTokens(config) {
  return Number(config.class_token) + Number(config.distillation_token) + config.num_register_tokens;
}

function upToFour(n) {
  return n + (4 - n % 4) % 4;
}

// Floats that a pass over N tokens needs beside the weights.
function roomFor(config, numTokens) {
  const n = upToFour(numTokens), { dim, hidden_dim: hidden } = config;
  const mlp = n * hidden * (config.activation === "swiglu" ? 3 : 1);
  const head = n * n + 4 * n * (dim / config.num_heads);
  return n * (patchLength(config) + 8 * dim) + mlp + head + 8 * (dim + config.num_classes) + 4096;
}

// What a learner changed about a pass; each is left out where nothing was changed.
//   patches     [[patch, place], …]: which patches are there, and at whose position each stands
//   headsOff    {block: [head, …]}: heads whose output is zero
//   mlpsOff, blocksOff, uniform   [block, …]: MLPs and blocks that add nothing; attention that is even
//   temperature number by which the scores are divided once more
//   watch       {block, head, query}: one row, whose numbers come back on their way
//
// Returns {logits, lens, attention, moved, patches, grid, numPrefix, watched}: lens has the logits that the head reads
// before the first block and after each, attention a Float32Array (H, N, N) a block, moved (H, N) the lengths of what
// each head of the last block moves from each token where its weight is 1.
function forward(model, arena, image, changes = {}) {
  const { config } = model;
  const start = arena.mark();
  const grid = [image.height / config.patch_size[0], image.width / config.patch_size[1]];
  const numPatches = grid[0] * grid[1];
  const patches = changes.patches || Array.from({ length: numPatches }, (_, p) => [p, p]);
  const count = patches.length + numPrefixTokens(config);
  if (count > model.numTokens) {
    throw new Error(`the picture has ${count} tokens, and the page has room for ${model.numTokens}`);
  }
  let tokens = embed(model, arena, image, grid, patches);                       // (N, D)
  const numTokens = tokens.length / config.dim;
  const watched = { moved: new Float32Array(config.num_heads * numTokens) };
  const attention = [], lens = [classify(model, arena, tokens, numTokens)];
  for (let block = 0; block < config.depth; block++) {
    attention.push(runBlock(model, arena, tokens, numTokens, block, changes, watched));
    lens.push(classify(model, arena, tokens, numTokens));
  }
  arena.release(start);
  return { logits: lens[lens.length - 1], lens, attention, moved: watched.moved, patches, grid,
    numPrefix: numPrefixTokens(config), watched: watched.scores ? watched : null };
}

// Equation 1: pixels (C, height, width) to tokens (N, D).
function embed(model, arena, image, grid, patches) {
  const { config, tensors, kernel } = model;
  const { dim, in_channels: channels, patch_size: [high, wide] } = config;
  const numPrefix = numPrefixTokens(config);
  const tokens = arena.take((numPrefix + patches.length) * dim);
  const mark = arena.mark();

  const flat = arena.take(patches.length * patchLength(config));                // (N, C·h·w)
  let at = 0;
  for (const [patch] of patches) {
    const top = Math.floor(patch / grid[1]) * high, left = (patch % grid[1]) * wide;
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < high; y++) {
        const from = (c * image.height + top + y) * image.width + left;
        for (let x = 0; x < wide; x++) flat[at++] = image.pixels[from + x];
      }
    }
  }
  const embedded = arena.take(patches.length * dim);
  kernel.linear(embedded, flat, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"],
    patches.length, patchLength(config), dim);                                  // (N, C·h·w) -> (N, D)

  const { position, numPlaced } = positions(model, grid);
  const prefix = ["cls_token", "dist_token", "reg_token"].flatMap((name) => tensors[name] ? [...tensors[name]] : []);
  for (let i = 0; i < prefix.length; i++) tokens[i] = prefix[i] + (i < numPlaced * dim ? position[i] : 0);
  patches.forEach(([, place], i) => {
    for (let d = 0; d < dim; d++) {
      tokens[(numPrefix + i) * dim + d] = embedded[i * dim + d] + position[(numPlaced + place) * dim + d];
    }
  });
  arena.release(mark);
  if (config.norm_pre) layerNorm(tokens, tokens, model, "norm_pre");
  return tokens;
}

// Equations 2 and 3, in place; gives the attention weights (H, N, N).
function runBlock(model, arena, tokens, numTokens, block, changes, watched) {
  const { config, tensors, kernel } = model;
  const { dim, hidden_dim: hidden, activation } = config;
  const name = `blocks.${block}`;
  const skipped = (changes.blocksOff || []).includes(block);
  const mark = arena.mark();
  const normed = arena.take(numTokens * dim), branch = arena.take(numTokens * dim);

  layerNorm(normed, tokens, model, `${name}.norm1`);
  const weights = attend(model, arena, branch, normed, numTokens, block, changes, watched);
  if (!skipped) addBranch(tokens, branch, tensors[`${name}.ls1.gamma`], dim);

  if (!skipped && !(changes.mlpsOff || []).includes(block)) {
    layerNorm(normed, tokens, model, `${name}.norm2`);
    const width = activation === "swiglu" ? 2 * hidden : hidden;
    const inner = arena.take(numTokens * width);
    kernel.linear(inner, normed, tensors[`${name}.mlp.fc1.weight`], tensors[`${name}.mlp.fc1.bias`],
      numTokens, dim, width);                                                   // (N, D) -> (N, hidden)
    const active = activate(arena, inner, activation, numTokens, hidden);
    kernel.linear(branch, active, tensors[`${name}.mlp.fc2.weight`], tensors[`${name}.mlp.fc2.bias`],
      numTokens, hidden, dim);                                                  // (N, hidden) -> (N, D)
    addBranch(tokens, branch, tensors[`${name}.ls2.gamma`], dim);
  }
  arena.release(mark);
  return weights;
}

// softmax(QKᵀ/√d)V for each head, and the projection of all of them: (N, D) to (N, D).
// Keys are padded with zeros to a multiple of four, which the kernel wants; no weight falls on them.
function attend(model, arena, out, normed, numTokens, block, changes, watched) {
  const { config, tensors, kernel } = model;
  const { dim, num_heads: numHeads } = config;
  const width = dim / numHeads, numKeys = upToFour(numTokens);
  const off = (changes.headsOff || {})[block] || [];
  const even = (changes.uniform || []).includes(block);
  const isLast = block === config.depth - 1, skipped = (changes.blocksOff || []).includes(block);
  const scale = 1 / (Math.sqrt(width) * (changes.temperature || 1));
  const name = `blocks.${block}.attn`;
  const weights = new Float32Array(numHeads * numTokens * numTokens);           // (H, N, N)

  const qkv = arena.take(numTokens * 3 * dim), mixed = arena.take(numTokens * dim);
  kernel.linear(qkv, normed, tensors[`${name}.qkv.weight`], tensors[`${name}.qkv.bias`],
    numTokens, dim, 3 * dim);                                                   // (N, D) -> (N, 3·D)
  const query = arena.take(numTokens * width), key = arena.take(numKeys * width);
  const value = arena.take(width * numKeys);                                    // (d, M): columns are tokens
  const scores = arena.take(numTokens * numKeys), headOut = arena.take(numTokens * width);
  key.fill(0);
  value.fill(0);
  for (let head = 0; head < numHeads; head++) {
    for (let i = 0; i < numTokens; i++) {
      for (let d = 0; d < width; d++) {
        const at = i * 3 * dim + head * width + d;
        query[i * width + d] = qkv[at] * scale;
        key[i * width + d] = qkv[at + dim];
        value[d * numKeys + i] = qkv[at + 2 * dim];
      }
    }
    kernel.linear(scores, query, key, null, numTokens, width, numKeys);         // (N, d) -> (N, M)
    const { watch } = changes, isWatched = watch && watch.block === block && watch.head === head;
    if (isWatched) Object.assign(watched, noteScores(qkv, scores, watch.query, head, numTokens, dim, width, numKeys));
    for (let i = 0; i < numTokens; i++) {
      const row = scores.subarray(i * numKeys, (i + 1) * numKeys);
      if (even) row.fill(1 / numTokens, 0, numTokens);
      else softmax(row, numTokens);
      row.fill(0, numTokens);
      weights.set(row.subarray(0, numTokens), (head * numTokens + i) * numTokens);
    }
    if (isLast && !skipped && !off.includes(head)) {
      watched.moved.set(lengthsMoved(model, block, head, value, numTokens), head * numTokens);
    }
    if (off.includes(head)) headOut.fill(0);
    else kernel.linear(headOut, scores, value, null, numTokens, numKeys, width); // (N, M) -> (N, d)
    if (isWatched) watched.mix = headOut.slice(watch.query * width, (watch.query + 1) * width);
    for (let i = 0; i < numTokens; i++) {
      for (let d = 0; d < width; d++) mixed[i * dim + head * width + d] = headOut[i * width + d];
    }
  }
  kernel.linear(out, mixed, tensors[`${name}.proj.weight`], tensors[`${name}.proj.bias`], numTokens, dim, dim);
  return weights;
}

// The numbers of one row on its way: its query, all keys and values of the head, and its scores.
function noteScores(qkv, scores, query, head, numTokens, dim, width, numKeys) {
  const part = (token, kind) => {
    const start = token * 3 * dim + kind * dim + head * width;
    return qkv.slice(start, start + width);
  };
  const all = (kind) => Array.from({ length: numTokens }, (_, token) => part(token, kind));
  const row = scores.slice(query * numKeys, query * numKeys + numTokens);
  return { query: part(query, 0), keys: all(1), values: all(2), scores: row };
}

// Equation 4 and the head: the logits that the head reads from the tokens as they are; without a head the
// pooled features.
function classify(model, arena, tokens, numTokens) {
  const { config, tensors, kernel } = model;
  const { dim, pooling } = config;
  const mark = arena.mark();
  let normed = tokens;
  if (tensors["norm.weight"]) {
    normed = arena.take(numTokens * dim);
    layerNorm(normed, tokens, model, "norm");
  }
  const numPrefix = numPrefixTokens(config), numPatches = numTokens - numPrefix;
  const mean = new Float32Array(dim);
  if (pooling !== "cls") {
    for (let i = numPrefix; i < numTokens; i++) {
      for (let d = 0; d < dim; d++) mean[d] += normed[i * dim + d] / numPatches;
    }
  }
  const classToken = normed.subarray(0, dim);
  const parts = pooling === "cls" ? [classToken] : pooling === "mean" ? [mean] : [classToken, mean];
  let pooled = arena.take(parts.length * dim);
  parts.forEach((part, i) => pooled.set(part, i * dim));
  if (config.fc_norm) layerNorm(pooled, pooled, model, "fc_norm");
  if (config.representation_dim) {
    const hidden = arena.take(config.representation_dim);
    kernel.linear(hidden, pooled, tensors["pre_logits.0.weight"], tensors["pre_logits.0.bias"],
      1, pooled.length, hidden.length);
    for (let k = 0; k < hidden.length; k++) hidden[k] = Math.tanh(hidden[k]);
    pooled = hidden;
  }
  let logits = pooled.slice();
  if (config.num_classes) {
    const out = arena.take(config.num_classes);
    kernel.linear(out, pooled, tensors["head.weight"], tensors["head.bias"], 1, pooled.length, out.length);
    logits = out.slice();
    if (config.distillation_token) {                                            // DeiT: two heads speak together
      const second = arena.take(dim);
      second.set(normed.subarray(dim, 2 * dim));
      kernel.linear(out, second, tensors["head_dist.weight"], tensors["head_dist.bias"], 1, dim, out.length);
      for (let k = 0; k < out.length; k++) logits[k] = (logits[k] + out[k]) / 2;
    }
  }
  arena.release(mark);
  return logits;
}

function addBranch(tokens, branch, scale, dim) {
  for (let k = 0; k < branch.length; k++) tokens[k] += scale ? branch[k] * scale[k % dim] : branch[k];
}

// (x - mean) / √(variance + ε) · weight + bias, row by row.
function layerNorm(out, x, model, name) {
  const weight = model.tensors[`${name}.weight`], bias = model.tensors[`${name}.bias`];
  const dim = weight.length;
  for (let start = 0; start < x.length; start += dim) {
    let mean = 0, square = 0;
    for (let d = 0; d < dim; d++) mean += x[start + d];
    mean /= dim;
    for (let d = 0; d < dim; d++) square += (x[start + d] - mean) ** 2;
    const scale = 1 / Math.sqrt(square / dim + model.config.layer_norm_eps);
    for (let d = 0; d < dim; d++) out[start + d] = (x[start + d] - mean) * scale * weight[d] + bias[d];
  }
}

// In place, over the first `count` numbers.
function softmax(row, count) {
  let largest = -Infinity, sum = 0;
  for (let k = 0; k < count; k++) largest = Math.max(largest, row[k]);
  for (let k = 0; k < count; k++) sum += row[k] = Math.exp(row[k] - largest);
  for (let k = 0; k < count; k++) row[k] /= sum;
}

// The MLP's activation; swiglu gives half the width: silu(first half) · second half.
function activate(arena, inner, activation, numTokens, hidden) {
  if (activation === "swiglu") {
    const out = arena.take(numTokens * hidden);
    for (let i = 0; i < numTokens; i++) {
      for (let k = 0; k < hidden; k++) {
        const gate = inner[i * 2 * hidden + k];
        out[i * hidden + k] = gate / (1 + Math.exp(-gate)) * inner[i * 2 * hidden + hidden + k];
      }
    }
    return out;
  }
  const one = ACTIVATIONS[activation];
  for (let k = 0; k < inner.length; k++) inner[k] = one(inner[k]);
  return inner;
}

const ACTIVATIONS = {
  gelu: (x) => x * 0.5 * (1 + erf(x * Math.SQRT1_2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  quick_gelu: (x) => x / (1 + Math.exp(-1.702 * x)),
  relu: (x) => Math.max(0, x),
};

// Abramowitz and Stegun 1964, formula 7.1.26: within 1.5e-7.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const value = 1 - tail * Math.exp(-x * x);
  return x < 0 ? -value : value;
}
