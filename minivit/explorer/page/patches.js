// What happens to patches: one is taken away, two change places, all are shuffled.
//
// A pass is asked for with [[patch, place], …]: whose pixels are there, and at whose position they stand.

const TOOLS = {
  remove: ["Remove patches", "Click a patch, or press Enter on it, to take it away; again, and it is back."],
  swap: ["Swap two patches", "Click two patches, or press Enter on them: each takes the other's place."],
};
const tools = { chosen: null, held: null };               // a tool's name, and the first of two patches

function makePatchTools() {
  const section = document.getElementById("live"), row = document.createElement("div"), hint = words("p", "");
  row.className = "chips";
  hint.className = "hint";
  hint.id = "tool-hint";
  hint.setAttribute("role", "status");
  const button = (text, act) => {
    const one = words("button", text);
    one.type = "button";
    one.addEventListener("click", act);
    row.append(one);
    return one;
  };
  for (const [name, [text]] of Object.entries(TOOLS)) {
    button(text, () => chooseTool(tools.chosen === name ? null : name)).dataset.tool = name;
  }
  const shuffle = (together, says) => {
    chooseTool(null);
    change({ patches: shuffled(together) });
    hint.textContent = says;
  };
  button("Shuffle patches", () => shuffle(false, "Every patch stands at another's position."));
  button("Shuffle with positions", () => shuffle(true, "The tokens come in another order; every patch kept its "
    + "position, so that the picture looks as before. Compare the prediction."));
  section.append(words("h3", "Patches"), row, hint);
  chooseTool(null);
}

function chooseTool(name) {
  tools.chosen = name;
  const held = tools.held;
  tools.held = null;
  const hint = document.getElementById("tool-hint");
  if (!hint) return;                                      // no model runs here
  hint.textContent = name ? TOOLS[name][1] : "";
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }
  const stage = document.getElementById("stage");
  stage.classList.toggle("tool", Boolean(name));
  if (name) stage.scrollIntoView({ block: "nearest" });    // on a small screen it may be far from the button
  if (held !== null) draw();
}

function useTool(view, place) {
  if (tools.chosen === "remove") togglePlace(view, place);
  else swapPlaces(view, place);
}

// Which patch stands where at the moment.
function standing(view) {
  const { grid } = view, count = grid[0] * grid[1];
  return changes.patches || Array.from({ length: count }, (_, place) => [place, place]);
}

// Takes the patch of a place away, or brings back the one that belongs there.
function togglePlace(view, place) {
  const rest = standing(view).filter(([, one]) => one !== place);
  if (rest.length === standing(view).length) {
    const used = new Set(rest.map(([patch]) => patch));
    const missing = [place, ...Array(used.size + 1).keys()].find((patch) => !used.has(patch));
    rest.push([missing, place]);
  }
  if (rest.length) setPatches(view, rest);
}

// The first patch is held until there is a second.
function swapPlaces(view, place) {
  if (!view.places.includes(place)) return;
  if (tools.held === null || tools.held === place) {
    tools.held = tools.held === place ? null : place;
    document.getElementById("tool-hint").textContent = tools.held === null ? TOOLS.swap[1] : "Now the second one.";
    draw();
    return;
  }
  const at = { [place]: tools.held, [tools.held]: place };
  tools.held = null;
  document.getElementById("tool-hint").textContent = TOOLS.swap[1];
  setPatches(view, standing(view).map(([patch, one]) => [patch, at[one] ?? one]));
}

// In the order of places; as at the start, nothing is changed.
function setPatches(view, patches) {
  const sorted = patches.sort((a, b) => a[1] - b[1]);
  const whole = sorted.length === view.grid[0] * view.grid[1] && sorted.every(([patch, place]) => patch === place);
  change({ patches: whole ? null : sorted });
}

// Patches in an order of chance: each stands at another's position, or takes its own along.
function shuffled(together) {
  const { grid } = page.pictures[state.picture], places = Array.from({ length: grid[0] * grid[1] }, (_, k) => k);
  const order = [...places];
  for (let k = order.length - 1; k > 0; k--) {
    const other = Math.floor(Math.random() * (k + 1));
    [order[k], order[other]] = [order[other], order[k]];
  }
  return together ? order.map((patch) => [patch, patch]) : places.map((place) => [order[place], place]);
}
