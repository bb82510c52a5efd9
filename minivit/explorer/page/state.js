// What is looked at: one object, the view that is drawn from it, and the link that names it.

const START = {
  picture: 0, ask: "row", token: 0, method: "attention", block: -1, head: "mean",
  opacity: 65, colours: Object.keys(COLOURS)[0], smooth: false, theme: "", target: null,
  word: 0, align: "predicts", relative: false, pin: null,   // of a caption
};
const CHOICES = { ask: ["row", "column"], align: ["predicts", "reads"], theme: ["", "light", "dark"] };

// The state that a link's fragment names; what it does not name, or names wrongly, is as at the start.
function stateOf(fragment) {
  const state = { ...START };
  for (const [key, text] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (!(key in START)) continue;
    if (CHOICES[key]) {
      if (CHOICES[key].includes(text)) state[key] = text;
    } else if (key === "smooth" || key === "relative") state[key] = text === "1";
    else if (key === "method" || key === "colours") state[key] = text;
    else if (key === "head" && (text === "mean" || text === "max")) state[key] = text;
    else if (/^-?\d{1,6}$/.test(text)) state[key] = Number(text);
  }
  return state;
}

function fragmentOf(state) {
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (key in START && value !== START[key]) words.set(key, value === true ? "1" : String(value));
  }
  return words.toString();
}

// In a notebook's frame the browser refuses one of the two, or both: the view works without a link.
function showInAddress(state) {
  try {
    history.replaceState(null, "", `#${fragmentOf(state)}`);
  } catch { /* a frame without an address of its own */ }
}
