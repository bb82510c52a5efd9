// A map's numbers in words: one cell's, and what all of them together hold.

// What the pointer is on: row, column, the number there, and how many times an even share it is.
function readPlace(view, place) {
  if (view.caption) return readCell(view, place);
  const value = view.values[place];
  const where = `row ${Math.floor(place / view.grid[1])}, column ${place % view.grid[1]}`;
  if (!view.places.includes(place)) return `${where}: taken away`;
  if (Number.isNaN(value)) return where;
  const times = timesEven(view, value);
  return `${where}: ${number(value)}${times === null ? "" : `, ${timesOver(times)} × even`}`;
}

function timesOver(times) {
  return times > 0 && times < 0.005 ? "<0.01" : times.toFixed(times < 10 ? 2 : 0);
}

// An even row gives each token the same; an even map, each patch. A signed map has no shares.
function timesEven(view, value) {
  if (view.isAttention) return value * view.numTokens;
  const values = view.values.filter((one) => !Number.isNaN(one)), sum = values.reduce((total, one) => total + one, 0);
  return view.signed || !(sum > 0) ? null : value / sum * values.length;
}

// How much of what there is the picture shows, and where the rest is.
function massOf(view) {
  if (view.caption) return massOfWord(view);
  return view.isAttention ? massOfRow(view) : massOfMap(view);
}

function massOfRow(view) {
  if (view.query < 0) return "This patch was taken away: nothing looks from here, and nothing looks at it.";
  const sum = view.tokens.reduce((total, value) => total + value, 0) || 1;
  const rest = prefixNames(view.page.config).map((name, k) => `${name} ${percent(view.tokens[k] / sum)}`);
  const patches = view.tokens.slice(view.numPrefix).reduce((total, value) => total + value, 0) / sum;
  const { ask, head, token } = view.state;
  const what = ask === "row" ? "of its attention lies on patches" : "of what looks at it are patches";
  const where = `${nameOfToken(view, token)}, block ${view.block}, ${nameOfHead(head)}`;
  return `${where}: ${percent(patches)} ${what}${rest.length ? `; ${rest.join(", ")}` : ""}`;
}

// Of a token of the whole picture, as the state has it.
function nameOfToken(view, token) {
  const place = token - view.numPrefix;
  return place < 0 ? prefixNames(view.page.config)[token]
    : `row ${Math.floor(place / view.grid[1])}, column ${place % view.grid[1]}`;
}

function nameOfHead(head) {
  return typeof head === "number" ? `head ${head}` : `${head} over heads`;
}

// A map of rollout is the part of a row that lies on patches; of others, only the distribution says something.
function massOfMap({ page, state, values: cells, signed, target }) {
  const name = state.method.replace(/_/g, " "), values = cells.filter((value) => !Number.isNaN(value));
  const title = page.for_a_class.includes(state.method) ? `${name} for ${labelOf(page, target)}` : name;
  const above = values.reduce((total, value) => total + Math.max(0, value), 0);
  const below = values.reduce((total, value) => total - Math.min(0, value), 0);
  if (above + below === 0) return `${title}: 0 everywhere`;
  const share = above / (above + below);
  if (signed) return `${title}: ${percent(share)} of it is above 0, ${percent(1 - share)} below`;
  const row = state.method === "rollout" ? `${percent(above)} of the row lies on patches; ` : "";
  return `${title}: ${row}half of the map on ${cellsForHalf(values, above)} of ${values.length} patches`;
}

// How few cells hold half of a map.
function cellsForHalf(values, sum) {
  const sorted = Float32Array.from(values).sort().reverse();
  let got = 0, count = 0;
  while (got < sum / 2 && count < sorted.length) got += sorted[count++];
  return count;
}

function percent(share) {
  return share > 0 && share < 5e-4 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`;
}

// Three digits that say something: 0.0123, 1.2e-5.
function number(value) {
  if (value === 0) return "0";
  return Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4 ? value.toExponential(1) : value.toPrecision(3);
}

function prefixNames(config) {
  const names = config.class_token ? ["class token"] : [];
  if (config.distillation_token) names.push("distillation token");
  for (let k = 0; k < config.num_register_tokens; k++) names.push(`register ${k}`);
  return names;
}
