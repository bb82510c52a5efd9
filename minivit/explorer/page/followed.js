// Maps of the methods that a pass of the page can give, whatever was changed or dropped: no gradients are needed.
//
// Rollout (minivit/explain/methods/rolled_row.py) follows the class token's row through the weights of all blocks,
// from the last to the first. It reads weights alone: a head or a block that is off counts in it all the same.
//
//   r(L+1) = one-hot of the class token        r(l) = r(l+1) / 2 + r(l+1) Σ_h A_h(l) / 2H
//
// Value norm (value_norm.py) weighs the class token's attention in the last block by the length of what is moved:
// mean over heads of A_h[class, j] · ‖W_h v_j‖. What is off moves nothing.

const FOLLOWED = { rollout: rolledRow, value_norm: valueNorm };

// Names of the methods whose maps this model's passes give: both are of the class token.
function followedMethods(config) {
  return config.class_token ? Object.keys(FOLLOWED) : [];
}

// One number a token of a pass, by one of these methods; a pass is followed once.
function followed(pass, method) {
  pass.followed = pass.followed || {};
  if (!pass.followed[method]) pass.followed[method] = FOLLOWED[method](pass);
  return pass.followed[method];
}

function rolledRow({ attention, numHeads }) {
  const n = Math.sqrt(attention[0].length / numHeads);
  let row = new Float64Array(n);
  row[0] = 1;
  for (const weights of [...attention].reverse()) {
    const next = row.map((share) => share / 2);
    for (let head = 0; head < numHeads; head++) {
      for (let i = 0; i < n; i++) {
        if (!row[i]) continue;                            // at the last block all but one
        const share = row[i] / (2 * numHeads), start = (head * n + i) * n;
        for (let j = 0; j < n; j++) next[j] += share * weights[start + j];
      }
    }
    row = next;
  }
  return row;
}

function valueNorm({ attention, moved, numHeads }) {
  const weights = attention[attention.length - 1], n = moved.length / numHeads, row = new Float64Array(n);
  for (let head = 0; head < numHeads; head++) {
    for (let j = 0; j < n; j++) row[j] += weights[head * n * n + j] * moved[head * n + j] / numHeads;
  }
  return row;
}

// ‖W v_j‖ of each token of a head, as ‖W v‖² = vᵀ (WᵀW) v: W, the head's columns of the output projection, is far
// longer than it is wide. `value` is (d, M): columns are tokens.
function lengthsMoved(model, block, head, value, numTokens) {
  const width = model.config.dim / model.config.num_heads, numKeys = value.length / width;
  const gram = gramOf(model, block, head), out = new Float32Array(numTokens);
  for (let j = 0; j < numTokens; j++) {
    let square = 0;
    for (let a = 0; a < width; a++) {
      let sum = 0;
      for (let b = 0; b < width; b++) sum += gram[a * width + b] * value[b * numKeys + j];
      square += sum * value[a * numKeys + j];
    }
    out[j] = Math.sqrt(Math.max(0, square));
  }
  return out;
}

// WᵀW of a head, (d, d), computed once a model.
function gramOf(model, block, head) {
  const { dim, num_heads: numHeads } = model.config, width = dim / numHeads;
  model.grams = model.grams || new Map();
  const name = `${block} ${head}`;
  if (!model.grams.has(name)) {
    const weight = model.tensors[`blocks.${block}.attn.proj.weight`], gram = new Float64Array(width * width);
    for (let out = 0; out < dim; out++) {
      const start = out * dim + head * width;
      for (let a = 0; a < width; a++) {
        for (let b = 0; b < width; b++) gram[a * width + b] += weight[start + a] * weight[start + b];
      }
    }
    model.grams.set(name, gram);
  }
  return model.grams.get(name);
}
