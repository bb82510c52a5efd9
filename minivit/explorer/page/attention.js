// Where attention weights come from: a pass that ran in the page, or stored queries and keys.
//
// Both answer row(block, head, query) and column(block, head, key) with one number a token.

// The result of `forward`: all weights are there, (H, N, N) a block.
class ComputedAttention {
  constructor(pass) {
    this.pass = pass;
    this.numTokens = Math.sqrt(pass.attention[0].length / pass.numHeads);
  }

  row(block, head, query) {
    const n = this.numTokens, start = (head * n + query) * n;
    return this.pass.attention[block].subarray(start, start + n);
  }

  column(block, head, key) {
    const n = this.numTokens, weights = this.pass.attention[block];
    return Float32Array.from({ length: n }, (_, query) => weights[(head * n + query) * n + key]);
  }
}

// Queries and keys in 16 bits, (L, H, N, d), each vector with a scale of its own:
// row = softmax(q·K/√d). A column needs one weight of each row: exp(q·k/√d - log of the row's sum).
class StoredAttention {
  constructor(stored) {
    this.stored = stored;
    [, this.numHeads, this.numTokens, this.width] = stored.queries.shape;
  }

  row(block, head, query) {
    const scores = this.scores(block, head, "queries", query, "keys");
    softmax(scores, scores.length);
    return scores;
  }

  column(block, head, key) {
    const scores = this.scores(block, head, "keys", key, "queries");
    const sums = arrayOf(this.stored.sums), first = this.first(block, head);
    return scores.map((score, query) => Math.exp(score - sums[first + query]));
  }

  // Products of one vector of `one` with all of `all`, over √d.
  scores(block, head, one, token, all) {
    const { numTokens, width } = this, first = this.first(block, head);
    const vectors = arrayOf(this.stored[one]), others = arrayOf(this.stored[all]);
    const scale = arrayOf(this.stored[SCALES[one]])[first + token] / Math.sqrt(width);
    const scales = arrayOf(this.stored[SCALES[all]]);
    const out = new Float32Array(numTokens), start = (first + token) * width;
    for (let k = 0; k < numTokens; k++) {
      let sum = 0;
      for (let d = 0; d < width; d++) sum += vectors[start + d] * others[(first + k) * width + d];
      out[k] = sum * scale * scales[first + k];
    }
    return out;
  }

  // Number of a head's first token among those of all blocks and heads.
  first(block, head) {
    return (block * this.numHeads + head) * this.numTokens;
  }
}

const SCALES = { queries: "query_scales", keys: "key_scales" };

// One number a token for the head that is chosen: its own, or the mean or largest over heads; NaN for a token
// that was taken away, -1.
function lookedAt(attention, numHeads, { ask, block, head, token }) {
  if (token < 0) return new Float32Array(attention.numTokens).fill(NaN);
  const of = (number) => attention[ask](block, number, token);
  if (typeof head === "number") return of(head);
  const heads = Array.from({ length: numHeads }, (_, number) => of(number));
  return heads[0].map((_, k) => head === "max"
    ? Math.max(...heads.map((values) => values[k]))
    : heads.reduce((sum, values) => sum + values[k], 0) / numHeads);
}
