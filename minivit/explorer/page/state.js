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
    if (!Object.hasOwn(START, key)) continue;
    if (CHOICES[key]) {
      if (CHOICES[key].includes(text)) state[key] = text;
    } else if (key === "smooth" || key === "relative") state[key] = text === "1";
    else if (key === "method" || key === "colours") state[key] = text;
    else if (key === "head" && (text === "mean" || text === "max")) state[key] = text;
    else if (/^-?\d{1,6}$/.test(text)) state[key] = Number(text);
  }
  return state;
}

// The state as this page can show it: a link may name a picture, a token or a class that is not there.
function fitted(state, { captioner, pictures, config }) {
  const picture = between(state.picture, 0, pictures.length - 1);
  return { ...state, picture,
    block: between(state.block, -config.depth, config.depth - 1),
    head: state.head < 0 || state.head >= config.num_heads ? START.head : state.head,   // words are neither
    opacity: between(state.opacity, 0, 100),
    colours: Object.hasOwn(COLOURS, state.colours) ? state.colours : START.colours,
    ...(captioner ? fittedWords(state, pictures[picture]) : fittedToken(state, pictures[picture], config)) };
}

function fittedToken({ token, target }, { grid, maps }, config) {
  return { token: between(token, 0, numPrefixTokens(config) + grid[0] * grid[1] - 1),
    target: maps.some((map) => map.target === target) ? target : null };
}

function fittedWords({ word, pin }, { caption }) {
  const last = caption.words.length - 1;
  return { word: between(word, 0, last), pin: pin !== null && pin === between(pin, 0, last) ? pin : null };
}

function between(value, low, high) {
  return Math.min(high, Math.max(low, value));
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
