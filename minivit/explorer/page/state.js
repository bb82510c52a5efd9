// What is looked at: one object, the view that is drawn from it, and the link that names it.

const START = {
  picture: 0, ask: "row", token: 0, method: "attention", block: -1, head: "mean",
  opacity: 65, colours: Object.keys(COLOURS)[0], smooth: false, theme: "", target: null,
};
const CHOICES = { ask: ["row", "column"], theme: ["", "light", "dark"] };

// The state that a link's fragment names; what it does not name, or names wrongly, is as at the start.
function stateOf(fragment) {
  const state = { ...START };
  for (const [key, text] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (!Object.hasOwn(START, key)) continue;
    if (CHOICES[key]) {
      if (CHOICES[key].includes(text)) state[key] = text;
    } else if (key === "smooth") state[key] = text === "1";
    else if (key === "method" || key === "colours") state[key] = text;
    else if (key === "head" && (text === "mean" || text === "max")) state[key] = text;
    else if (/^-?\d{1,6}$/.test(text)) state[key] = Number(text);
  }
  return state;
}

// The state as this page can show it: a link may name a picture, a token or a class that is not there.
function fitted(state, { pictures, config }) {
  const between = (value, low, high) => Math.min(high, Math.max(low, value));
  const picture = between(state.picture, 0, pictures.length - 1), { grid, maps } = pictures[picture];
  return { ...state, picture,
    token: between(state.token, 0, numPrefixTokens(config) + grid[0] * grid[1] - 1),
    block: between(state.block, -config.depth, config.depth - 1),
    head: state.head < 0 || state.head >= config.num_heads ? START.head : state.head,   // words are neither
    opacity: between(state.opacity, 0, 100),
    colours: Object.hasOwn(COLOURS, state.colours) ? state.colours : START.colours,
    target: maps.some(({ target }) => target === state.target) ? state.target : null };
}

function fragmentOf(state) {
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (Object.hasOwn(START, key) && value !== START[key]) words.set(key, value === true ? "1" : String(value));
  }
  return words.toString();
}

// In a notebook's frame the browser refuses one of the two, or both: the view works without a link.
function showInAddress(state) {
  try {
    history.replaceState(null, "", `#${fragmentOf(state)}`);
  } catch { /* a frame without an address of its own */ }
}
