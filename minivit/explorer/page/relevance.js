// Relevance of the cells for a word, as minivit/explain/words.py computed it: through which of them attention passes
// that raises the word's logit. It was stored in 16 bits, (tokens, cells), each map with a scale of its own.

const WORD_METHODS = { attention: "attention", word_relevance: "word relevance" };

// Whether each of these words has a map: the end of a sentence as long as the captioner can write has none.
function hasRelevance({ relevance, words }, chosen) {
  const isKnown = (token) => relevance !== null && token < relevance.whole.shape[0];
  return chosen.every((word) => words[word].tokens.every(isKnown));
}

// The map of a word of several tokens is their mean, as it is of attention.
function relevanceOf({ relevance, words }, word) {
  const whole = arrayOf(relevance.whole), scales = arrayOf(relevance.scales), { tokens } = words[word];
  const count = relevance.whole.shape[1], out = new Float32Array(count);
  for (const token of tokens) {
    for (let k = 0; k < count; k++) out[k] += whole[token * count + k] * scales[token] / tokens.length;
  }
  return out;
}

// As `shownMaps` of attention. Maps of two words have no common scale: each is coloured up to its own largest.
function shownRelevance(caption, chosen) {
  const values = chosen.map((word) => relevanceOf(caption, word));
  const shades = values.map((map) => map.map((value) => value / (Math.max(...map) || 1)));
  return { values, shades, range: { low: 0, high: 1 }, signed: false, ends: ["0", "its largest"] };
}

function drawWordMethods(view, choose) {
  refill(document.getElementById("methods"), ...Object.entries(WORD_METHODS).map(([method, name]) => {
    const chip = words("button", name);
    chip.type = "button";
    chip.disabled = method !== "attention" && !hasRelevance(view.caption, [view.word]);
    chip.setAttribute("aria-pressed", String(view.isAttention === (method === "attention")));
    chip.addEventListener("click", () => choose({ method }));
    return chip;
  }));
}

function massOfRelevance(view) {
  const sum = view.values.reduce((total, value) => total + value, 0);
  const cells = `${cellsForHalf(view.values, sum)} of ${view.values.length} cells`;
  const half = sum > 0 ? `half of it on ${cells}` : "0 everywhere";
  return `word relevance: through which cells attention that raises the word passes; ${half}; `
    + "each map has a scale of its own";
}
