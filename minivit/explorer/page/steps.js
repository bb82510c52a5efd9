// One query on its way, in numbers that can be read: q·k for each token, divided by √d, softmax, and the mix of
// the values. The tokens with most weight come first; a vector is drawn as a row of coloured cells.

const SHOWN = 12;

function drawSteps(view, ask) {
  const section = document.getElementById("steps"), { watched } = (passes.get(view.state.picture) || {});
  section.hidden = !live;
  if (!live) return;
  const body = section.querySelector("div"), { head } = view.state, token = view.query;
  if (token < 0) {
    body.replaceChildren(words("p", "The chosen patch was taken away."));
    return;
  }
  if (typeof head !== "number") {
    body.replaceChildren(words("p", "Choose one head to follow its numbers."));
    return;
  }
  const wanted = { block: view.block, head, query: token }, { watch } = changes;
  const isSame = (one) => one && Object.keys(wanted).every((key) => one[key] === wanted[key]);
  const name = `${nameOfToken(view, view.state.token)} in block ${view.block}, head ${head}`;
  const button = words("button", watch ? "Stop following" : `Follow ${name}`);
  button.type = "button";
  button.addEventListener("click", () => ask(watch ? null : wanted));
  refill(body, button);
  if (watch) body.append(words("p", `Followed: ${name}`));
  if (watch && !isSame(watch)) ask(wanted);               // who follows one query follows the next one
  if (!watched || !isSame(watched.asked)) return;
  const width = watched.query.length, weights = Float32Array.from(watched.scores);
  softmax(weights, weights.length);
  const rows = likeliest(weights, SHOWN).map((key) => {
    const row = document.createElement("tr"), scaled = watched.scores[key];
    row.append(words("th", tokenName(view, key)), vector(watched.keys[key]),
      words("td", (scaled * Math.sqrt(width)).toFixed(2)), words("td", scaled.toFixed(2)),
      words("td", number(Math.exp(scaled - Math.max(...watched.scores)))), words("td", number(weights[key])),
      vector(watched.values[key]));
    return row;
  });
  const head1 = document.createElement("tr"), table = document.createElement("table");
  head1.append(...["row, column", "k", "q·k", "/ √d", "exp", "weight", "v"].map((name) => words("th", name)));
  table.append(head1, ...rows);
  const rest = likeliest(weights, weights.length).slice(SHOWN).reduce((sum, key) => sum + weights[key], 0);
  const line = (name, values) => {
    const list = document.createElement("dl");
    list.append(words("dt", name), holder(vector(values)));
    return list;
  };
  const others = weights.length - Math.min(SHOWN, weights.length);
  body.append(line(`q, ${width} numbers`, watched.query), table,
    words("p", `All other ${others} tokens: weight ${number(rest)} together. exp is that of the score less the `
      + "largest one."),
    line("the mix: weights times v, summed over all tokens", watched.mix));
}

// Row and column of a patch, or the name of a token beside the picture.
function tokenName(view, token) {
  const place = placeOf(view, token);
  if (place < 0) return prefixNames(view.page.config)[token];
  return `${Math.floor(place / view.grid[1])}, ${place % view.grid[1]}`;
}

// A vector as cells, blue below 0 and red above; its numbers are the title.
function vector(values) {
  const cell = document.createElement("td"), canvas = document.createElement("canvas");
  const range = rangeOf(values, true);
  canvas.width = 8 * values.length;                      // printers smooth what is enlarged
  canvas.height = 8;
  drawMap(canvas.getContext("2d"), mapCanvas(values, [1, values.length], range, colourTable(SIGNED_COLOURS)), false);
  canvas.className = "vector";
  canvas.title = Array.from(values, (value) => value.toFixed(2)).join(" ");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label",
    `${values.length} numbers from ${number(Math.min(...values))} to ${number(Math.max(...values))}`);
  cell.append(canvas);
  return cell;
}

function holder(cell) {
  const data = document.createElement("dd");
  data.append(...cell.childNodes);
  return data;
}
