// What a captioner looked at, step by step: its cross-attention, (L, H, T, M), was stored for every step.
//
// Step t of the decoder reads token t - 1 (step 0 the start token) and predicts token t. A word has the map of the
// step that predicts it, or of the one that reads it, one later; the map of a word of several tokens is their mean.

class StepAttention {
  constructor(caption, align) {
    this.caption = caption;
    this.align = align;
    [, this.numHeads, this.numSteps, this.numCells] = caption.maps.shape;
    this.shift = align === "reads" ? 1 : 0;
  }

  // The steps whose maps a word has, one for each of its tokens.
  stepsOf(word) {
    return this.caption.words[word].tokens.map((token) => token + this.shift);
  }

  row(block, head, word) {
    const { numHeads, numSteps, numCells } = this, steps = this.stepsOf(word), maps = arrayOf(this.caption.maps);
    const out = new Float32Array(numCells);
    for (const step of steps) {
      const start = ((block * numHeads + head) * numSteps + step) * numCells;
      for (let k = 0; k < numCells; k++) out[k] += maps[start + k] / steps.length;
    }
    return out;
  }

  // A word's map: of one head, or the mean or largest over heads.
  map(block, head, word) {
    return lookedAt(this, this.numHeads, { ask: "row", block, head, token: word });
  }
}

// Each map divided by the mean over the words, in which the end does not count: 1 is as much as the average word.
// Without this all words look alike, since a large part of each map goes to the same few cells.
function relativeMaps(maps, words) {
  const spoken = maps.filter((_, word) => !words[word].end), counted = spoken.length ? spoken : maps;
  const mean = maps[0].map((_, k) => counted.reduce((sum, map) => sum + map[k], 0) / counted.length);
  return maps.map((map) => map.map((value, k) => value / Math.max(mean[k], 1.2e-38)));
}

// The end of a scale of ratios: the power of 2 that one cell in a hundred exceeds, 2 to 16. One value at the edge
// of a map would otherwise make all others pale.
function ratioLimit(maps) {
  const ordered = Float32Array.from(maps.flatMap((map) => [...map])).sort();
  const high = ordered[Math.floor(0.99 * (ordered.length - 1))];
  return 2 ** Math.min(4, Math.max(1, Math.ceil(Math.log2(Math.max(high, 1)))));
}

// What a word's picture needs: the values of its map, and how they are coloured. `shades` are the values on the
// scale of `range`: those of ratios are logarithms.
function shownMaps(attention, words, chosen, { block, head, relative }) {
  if (!relative) {
    const values = chosen.map((word) => attention.map(block, head, word));
    const range = { low: 0, high: Math.max(...values.map((map) => rangeOf(map, false).high)) };
    return { values, shades: values, range, signed: false, ends: [number(0), number(range.high)] };
  }
  const ratios = relativeMaps(words.map((_, word) => attention.map(block, head, word)), words);
  const limit = ratioLimit(ratios), reach = Math.log2(limit);
  const values = chosen.map((word) => ratios[word]);
  const shades = values.map((map) => map.map((ratio) => Math.log2(ratio)));
  return { values, shades, range: { low: -reach, high: reach }, signed: true, ends: [`≤ 1/${limit}`, `≥ ${limit}`] };
}
