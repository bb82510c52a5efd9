// The page: state in, drawing out.

const page = { pictures: [] };
let state, images = [], live = null, passes = new Map(), changes = noChanges(), tool = "choose";

window.addEventListener("DOMContentLoaded", () => start().catch((error) => complain(error.message)));

async function start() {
  Object.assign(page, JSON.parse(document.getElementById("document").textContent));
  state = stateOf(location.hash);
  document.getElementById("weights").textContent = page.name;
  images = await Promise.all(page.pictures.map(({ source }) => load(source)));
  makeControls();
  if (page.captioner) startCaptions(choose);
  else listenForFiles();
  if (page.weights) await openLive();
  choose({});
}

// ---- what is seen ----------------------------------------------------------------------------------------

// Everything that is drawn follows from the state and, where a model runs, its last pass.
function viewOf() {
  const number = Math.min(Math.max(0, state.picture), page.pictures.length - 1);
  const picture = page.pictures[number], pass = passes.get(number);
  if (page.captioner) return captionView(page, state, picture, images[number]);
  const { config } = page;
  const numPrefix = numPrefixTokens(config), numHeads = config.num_heads, { grid } = picture;
  const attention = pass ? new ComputedAttention(pass) : picture.stored ? new StoredAttention(picture.stored) : null;
  if (!attention) return null;
  const numTokens = attention.numTokens;
  const places = pass ? pass.patches.map(([, place]) => place) : Array.from({ length: grid[0] * grid[1] }, (_, k) => k);
  const lens = pass && config.num_classes ? pass.lens : picture.lens ? rowsOf(picture.lens) : null;
  const target = state.target !== null ? state.target : lens ? likeliest(lens[lens.length - 1], 1)[0] : null;
  state.token = Math.min(Math.max(0, state.token), numTokens - 1);
  const block = Math.min(Math.max(0, state.block < 0 ? state.block + config.depth : state.block), config.depth - 1);
  if (typeof state.head === "number" && (state.head < 0 || state.head >= numHeads)) state.head = "mean";
  const view = { page, picture, state, image: images[number], grid, numPrefix, numHeads, numTokens, places, block,
    attention, lens, target, isAttention: true, signed: false };
  view.ofHead = (head) => mapOfHead(view, head);
  const map = picture.maps.find((one) => one.method === state.method && (one.target === null || one.target === target));
  if (state.method !== "attention" && map && !isChanged(number)) {
    Object.assign(view, { isAttention: false, signed: page.signed.includes(map.method), values: arrayOf(map.values) });
  } else {
    view.tokens = lookedAt(attention, numHeads, { ...state, block });
    view.values = onGrid(view, view.tokens);
  }
  return view;
}

function mapOfHead(view, head) {
  const { attention, numHeads, block } = view;
  const values = onGrid(view, lookedAt(attention, numHeads, { ...view.state, head, block }));
  const range = rangeOf(values, false);
  return { values, range, signed: false, ends: [number(range.low), number(range.high)] };
}

// One number a token to one a cell; NaN where no patch is.
function onGrid(view, tokens) {
  const values = new Float32Array(view.grid[0] * view.grid[1]).fill(NaN);
  view.places.forEach((place, k) => { values[place] = tokens[view.numPrefix + k]; });
  return values;
}

function rowsOf(reference) {
  const [count, width] = reference.shape, values = arrayOf(reference);
  return Array.from({ length: count }, (_, row) => values.subarray(row * width, (row + 1) * width));
}

function draw() {
  const view = viewOf();
  if (!view) return;
  drawTabs();
  drawPicture(view);
  drawHeads(view, choose);
  if (view.caption) {
    drawCaption(view, choose);
  } else {
    drawTokens(view);
    drawMethods(view);
    drawPrediction(view, choose);
    drawPlaces(view);
  }
  if (live) {
    drawSwitches(view, changes, change);
    drawSteps(view, (watch) => change({ watch }));
    if (drawnScene !== state.picture) drawSceneControls();
  }
  document.documentElement.dataset.theme = state.theme;
  document.getElementById("block").value = view.block;
  document.getElementById("block").max = page.config.depth - 1;
  document.getElementById("block-number").textContent = `${view.block} of 0 to ${page.config.depth - 1}`;
  document.getElementById("opacity").value = state.opacity;
  document.getElementById("colours").value = state.colours in COLOURS ? state.colours : START.colours;
  document.getElementById("smooth").checked = state.smooth;
  for (const button of document.querySelectorAll("[data-ask]")) {
    button.setAttribute("aria-checked", String(button.dataset.ask === state.ask));
  }
  const place = placeOf(view, state.token);
  if (place >= 0) document.getElementById("readout").textContent = readPlace(view, place);
  document.getElementById("mass").textContent = massOf(view);
}

// How much of the row the picture shows, and where the rest is.
function massOf(view) {
  if (view.caption) return massOfWord(view);
  if (!view.isAttention) return `${state.method} of ${view.target === null ? "no class" : labelOf(page, view.target)}`;
  const names = prefixNames(page.config);
  const sum = view.tokens.reduce((total, value) => total + value, 0) || 1;
  const rest = names.map((name, k) => `${name} ${percent(view.tokens[k] / sum)}`);
  const shown = view.tokens.slice(view.numPrefix).reduce((total, value) => total + value, 0) / sum;
  const what = state.ask === "row" ? "of its attention lies on patches" : "of what looks at it are patches";
  return `${percent(shown)} ${what}${rest.length ? `; ${rest.join(", ")}` : ""}`;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function prefixNames(config) {
  const names = config.class_token ? ["class token"] : [];
  if (config.distillation_token) names.push("distillation token");
  for (let k = 0; k < config.num_register_tokens; k++) names.push(`register ${k}`);
  return names;
}

function drawTabs() {
  const tabs = document.getElementById("tabs");
  if (tabs.childElementCount !== page.pictures.length) {
    tabs.replaceChildren(...page.pictures.map(({ name }, picture) => {
      const tab = words("button", name);
      tab.type = "button";
      tab.setAttribute("role", "tab");
      tab.addEventListener("click", () => turnTo(picture));
      return tab;
    }));
  }
  [...tabs.children].forEach((tab, k) => tab.setAttribute("aria-selected", String(k === state.picture)));
}

function drawTokens(view) {
  document.getElementById("prefix").replaceChildren(...prefixNames(page.config).map((name, token) => {
    const chip = words("button", view.isAttention ? `${name} ${number(view.tokens[token])}` : name);
    chip.type = "button";
    chip.setAttribute("aria-pressed", String(token === state.token));
    chip.addEventListener("click", () => choose({ token }));
    return chip;
  }));
}

function drawMethods(view) {
  const methods = ["attention", ...new Set(view.picture.maps.map(({ method }) => method))];
  document.getElementById("methods").replaceChildren(...methods.map((method) => {
    const score = (page.scores || {})[method];
    const chip = words("button", method.replace(/_/g, " ") + (score ? ` (${score})` : ""));
    chip.type = "button";
    chip.disabled = method !== "attention" && isChanged(state.picture);
    chip.setAttribute("aria-pressed", String(method === "attention" ? view.isAttention : !view.isAttention && method === state.method));
    chip.addEventListener("click", () => choose({ method }));
    return chip;
  }));
}

// Another picture; the model sees it first where it has not.
async function turnTo(picture) {
  resetChanges();
  if (live && !passes.has(picture)) await see(picture);
  choose({ picture, word: START.word, pin: START.pin });
}

// ---- what is done ----------------------------------------------------------------------------------------

function choose(news) {
  Object.assign(state, news);
  showInAddress(state);
  draw();
}

function makeControls() {
  const on = (id, event, act) => document.getElementById(id).addEventListener(event, act);
  document.getElementById("colours").append(...Object.keys(COLOURS).map((name) => new Option(name)));
  on("opacity", "input", ({ target }) => choose({ opacity: Number(target.value) }));
  on("colours", "change", ({ target }) => choose({ colours: target.value }));
  on("smooth", "change", ({ target }) => choose({ smooth: target.checked }));
  on("block", "input", ({ target }) => choose({ block: Number(target.value), method: "attention" }));
  on("theme", "click", () => choose({ theme: isDark() ? "light" : "dark" }));
  on("save", "click", savePicture);
  on("link", "click", copyLink);
  for (const button of document.querySelectorAll("[data-ask]")) {
    button.addEventListener("click", () => choose({ ask: button.dataset.ask, method: "attention" }));
  }
  const stage = document.getElementById("stage");
  stage.addEventListener("pointermove", (event) => (dragged ? drag(event) : pointAt(event)));
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { dragged = null; });
  stage.addEventListener("pointerdown", (event) => {
    const view = viewOf(), place = placeUnder(view, event);
    if (place < 0 || view.caption) return;
    if (tool === "remove") return togglePlace(view, place);
    startDrag(view, event);
    const k = view.places.indexOf(place);
    if (k >= 0) choose({ token: view.numPrefix + k, method: "attention" });
  });
  window.addEventListener("hashchange", () => { state = stateOf(location.hash); draw(); });
  window.addEventListener("keydown", press);
}

function pointAt(event) {
  const view = viewOf(), place = placeUnder(view, event);
  if (place >= 0) document.getElementById("readout").textContent = readPlace(view, place);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  const view = viewOf(), { key } = event;
  if (view.caption && pressInCaption(key, view, choose)) return event.preventDefault();
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const heads = ["mean", "max", ...Array.from({ length: view.numHeads }, (_, head) => head)];
  if (steps[key] && !view.caption) {
    const place = placeOf(view, state.token), [rows, cols] = view.grid;
    const from = place < 0 ? [Math.floor(rows / 2), Math.floor(cols / 2)] : [Math.floor(place / cols), place % cols];
    const row = Math.min(rows - 1, Math.max(0, from[0] + steps[key][0]));
    const col = Math.min(cols - 1, Math.max(0, from[1] + steps[key][1]));
    const k = view.places.indexOf(row * cols + col);
    if (k >= 0) choose({ token: view.numPrefix + k, method: "attention" });
  } else if (key === "[" || key === "]") {
    choose({ block: Math.min(page.config.depth - 1, Math.max(0, view.block + (key === "]" ? 1 : -1))), method: "attention" });
  } else if (key === "," || key === ".") {
    const at = heads.indexOf(state.head) + (key === "." ? 1 : heads.length - 1);
    choose({ head: heads[at % heads.length], method: "attention" });
  } else if (key === "r") {
    choose({ ask: state.ask === "row" ? "column" : "row", method: "attention" });
  } else return;
  event.preventDefault();
}

function savePicture() {
  const canvas = canvasToSave(viewOf());
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${page.pictures[state.picture].name.replace(/\.\w+$/, "")}-map.png`;
    link.click();
  });
}

async function copyLink() {
  const button = document.getElementById("link");
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy it from the address";
  }
  setTimeout(() => { button.textContent = "Copy link"; }, 2000);
}

function isDark() {
  return state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function load(source) {
  const image = new Image();
  image.src = source;
  return image.decode().then(() => image);
}

function complain(text) {
  const trouble = document.getElementById("trouble");
  trouble.textContent = text;
  trouble.hidden = false;
}

// ---- the running model -----------------------------------------------------------------------------------

let latest = null;

// What `Engine.open` needs of the weights that rode along.
function ownWeights() {
  const weights = {};
  for (const [name, { values, scales }] of Object.entries(page.weights)) {
    weights[name] = { values: arrayOf(values), scales: scales && arrayOf(scales) };
  }
  const { config, preprocess, labels } = page;
  return { description: { config, preprocess, labels }, weights, kernel: arrayOf(page.kernel) };
}

async function openLive() {
  const engine = new Live(document.getElementById("numerics").textContent);
  useModel(engine, { ...await engine.ask("open", ownWeights()), name: page.name });
  for (const number of page.pictures.keys()) await see(number);
}

// From here on this model runs: its config is the page's.
function useModel(engine, { name, config, preprocess, labels, kernel, positionTable }) {
  live = engine;
  if (name !== page.name) page.positions = null;
  Object.assign(page, { name, config, preprocess, labels, positionTable });
  document.getElementById("weights").textContent = name;
  changes = noChanges();
  latest = new Latest(async (number) => {
    try {
      const pass = await live.ask("run", { picture: page.pictures[number].pixels, changes: changesFor(changes) });
      passes.set(number, pass);
      document.getElementById("pass").textContent = `${kernel}: ${pass.milliseconds.toFixed(0)} ms a pass`;
      draw();
    } catch (error) {
      complain(error.message);
    }
  });
  makeSwitches();
}

// A picture as the model sees it, and a pass over it.
async function see(number) {
  const picture = page.pictures[number];
  if (!picture.pixels) {
    picture.original = picture.original || pixelsOfImage(images[number]);
    show(picture, await live.ask("view", { picture: picture.original }));
  }
  await latest.run(number);
}

// What is shown is what the model sees.
function show(picture, pixels) {
  const { width, height } = pixels, [high, wide] = page.config.patch_size;
  Object.assign(picture, { pixels, size: [width, height], grid: [height / high, width / wide] });
  images[page.pictures.indexOf(picture)] = canvasOf(pixels);
}

// The bytes of a picture that came with the page: its data: URL is lossless.
function pixelsOfImage(image) {
  const { width, height } = image, context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  return { pixels: toBytes(context.getImageData(0, 0, width, height).data, width * height), width, height, channels: 3 };
}

// ---- the objects of a scene ------------------------------------------------------------------------------

let dragged = null, drawnScene = null;

function bodiesOf(picture) {
  if (!picture.bodies) picture.bodies = picture.scene.bodies.map((body) => ({ ...body }));
  return picture.bodies;
}

function drawSceneControls() {
  const picture = page.pictures[state.picture];
  drawnScene = state.picture;
  drawObjects(picture.scene, picture.scene && bodiesOf(picture), changeBody);
}

// The scene with an object changed; maps that were made before belong to another picture.
function changeBody(index, news) {
  const picture = page.pictures[state.picture], { scene } = picture;
  Object.assign(bodiesOf(picture)[index], news);
  picture.original = composeScene(scene, picture.bodies);
  picture.maps = [];
  live.ask("view", { picture: picture.original }).then((pixels) => {
    show(picture, pixels);
    latest.ask(page.pictures.indexOf(picture));
  });
}

// Where a pointer is on the scene, (row, column) in shorter sides.
function onScene(event, scene) {
  const box = document.querySelector("#stage canvas").getBoundingClientRect(), short = Math.min(...scene.size);
  return [(event.clientY - box.top) / box.height * scene.size[0] / short,
    (event.clientX - box.left) / box.width * scene.size[1] / short];
}

// The pointer takes hold of an object, if there is one; a click without a drag chooses the patch all the same.
function startDrag(view, event) {
  const { scene } = view.picture;
  if (!live || !scene) return;
  const [row, column] = onScene(event, scene), bodies = bodiesOf(view.picture);
  const index = bodyUnder(scene, bodies, row, column);
  if (index < 0) return;
  dragged = { index, from: [row - bodies[index].row, column - bodies[index].column] };
  document.getElementById("stage").setPointerCapture(event.pointerId);

}

function drag(event) {
  const [row, column] = onScene(event, page.pictures[state.picture].scene);
  changeBody(dragged.index, { row: row - dragged.from[0], column: column - dragged.from[1] });
}

function makeSwitches() {
  const section = document.getElementById("live");
  section.hidden = false;
  section.replaceChildren(words("h2", "The model, running here"), words("p", ""), document.createElement("table"));
  section.querySelector("p").id = "pass";
  const tools = document.createElement("div");
  tools.className = "chips";
  const button = (text, act) => {
    const one = words("button", text);
    one.type = "button";
    one.addEventListener("click", () => act(one));
    tools.append(one);
  };
  button("Remove patches", (one) => {
    tool = tool === "remove" ? "choose" : "remove";
    one.setAttribute("aria-pressed", String(tool === "remove"));
  });
  button("Shuffle patches", () => change({ patches: shuffled(false) }));
  button("Shuffle, positions go along", () => change({ patches: shuffled(true) }));
  button("Back to the start", () => { resetChanges(); latest.ask(state.picture); });
  const label = words("label", "Scores divided once more by "), slider = document.createElement("input"), value = words("output", "1.00");
  Object.assign(slider, { type: "range", min: -20, max: 20, value: 0, id: "temperature", autocomplete: "off" });
  slider.addEventListener("input", () => {
    const temperature = 2 ** (slider.value / 5);
    value.textContent = temperature.toFixed(2);
    change({ temperature });
  });
  label.className = "block";
  label.append(value, slider);
  section.append(tools, label);
}

function change(news) {
  changes = { ...changes, ...news };
  latest.ask(state.picture);
}

function resetChanges() {
  if (!live || !isChanged(state.picture)) return;
  changes = noChanges();
  const slider = document.getElementById("temperature");
  slider.value = 0;
  slider.previousElementSibling.textContent = "1.00";
  latest.ask(state.picture);
}

function isChanged() {
  return JSON.stringify({ ...changes, watch: null }) !== JSON.stringify(noChanges());
}

function togglePlace(view, place) {
  const patches = changes.patches || view.places.map((one) => [one, one]);
  const rest = patches.filter(([, one]) => one !== place);
  if (rest.length === patches.length) rest.push([place, place]);
  if (rest.length) change({ patches: rest.sort((a, b) => a[1] - b[1]) });
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
