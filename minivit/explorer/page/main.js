// The page: state in, drawing out.

const page = { pictures: [] };
let state, images = [], live = null, passes = new Map(), changes = noChanges();

window.addEventListener("DOMContentLoaded", () => start().catch((error) => complain(error.message)));

async function start() {
  Object.assign(page, JSON.parse(document.getElementById("document").textContent));
  state = stateOf(location.hash);
  document.getElementById("weights").textContent = shown(page.name);
  document.getElementById("not-live").textContent = page.captioner
    ? "What each step looked at was stored when this page was written: nothing is computed again."
    : "This page holds queries and keys of these pictures and makes the maps of them; nothing else is computed. "
      + "Drop the weights, a .safetensors, onto the page, and the model runs here.";
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
  state = fitted(state, page);
  const number = state.picture;
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
  const block = state.block < 0 ? state.block + config.depth : state.block, changed = isChanged();
  // The token that is asked: its number among those of the pass, from which patches may be missing.
  const place = state.token < numPrefix ? -1 : state.token - numPrefix, at = places.indexOf(place);
  const query = place < 0 ? state.token : at < 0 ? -1 : numPrefix + at;
  const view = { page, picture, state, image: images[number], grid, numPrefix, numHeads, numTokens, places, block,
    attention, lens, target, place, query, changed, patches: pass && pass.patches,
    before: changed && config.num_classes ? untouched.get(number) : null, isAttention: true, signed: false };
  view.ofHead = (head) => mapOfHead(view, head);
  const map = mapOfMethod(view);
  if (map) {
    Object.assign(view, { isAttention: false, signed: page.signed.includes(state.method), values: map });
  } else {
    view.tokens = lookedAt(attention, numHeads, { ...state, block, token: query });
    view.values = onGrid(view, view.tokens);
  }
  return view;
}

// The map of the chosen method: as it was stored, and after a change as the pass gives it, or null.
function mapOfMethod(view) {
  const { page, picture, state: { method }, target, changed } = view, pass = passes.get(view.state.picture);
  const stored = picture.maps.find((one) => one.method === method && (one.target === null || one.target === target));
  if (stored && !changed) return arrayOf(stored.values);
  return pass && followedMethods(page.config).includes(method) ? onGrid(view, followed(pass, method)) : null;
}

function mapOfHead(view, head) {
  const { attention, numHeads, block, query: token } = view;
  const values = onGrid(view, lookedAt(attention, numHeads, { ...view.state, head, block, token }));
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
  try {
    drawAll();
  } catch (error) {
    complain(error.message);                              // a damaged array, found when it is looked at
    if (state.method !== START.method) choose({ method: START.method });
  }
}

function drawAll() {
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
  drawChanged(view);
  document.getElementById("not-live").hidden = Boolean(live || page.weights);
  const { size: [width, height] } = view.picture, cells = view.caption ? "cells" : "patches";
  document.getElementById("seen").textContent = `As the model sees it: ${width} × ${height} pixels, `
    + `${view.grid[0]} rows and ${view.grid[1]} columns of ${cells}.`;
  document.documentElement.dataset.theme = state.theme;
  document.getElementById("block").value = view.block;
  document.getElementById("block").max = page.config.depth - 1;
  document.getElementById("block-number").textContent = `${view.block} (of 0–${page.config.depth - 1})`;
  document.getElementById("opacity").value = state.opacity;
  document.getElementById("colours").value = state.colours;
  // Ratios have colours of their own.
  document.getElementById("colours").disabled = Boolean(view.caption && view.signed);
  document.getElementById("smooth").checked = state.smooth;
  for (const button of document.querySelectorAll("[data-ask]")) {
    button.setAttribute("aria-checked", String(view.isAttention && button.dataset.ask === state.ask));
  }
  read(view, pointed);
  document.getElementById("mass").textContent = shown(massOf(view));
}

function drawTabs() {
  const tabs = document.getElementById("tabs");
  if (tabs.childElementCount !== page.pictures.length) {
    tabs.replaceChildren(...page.pictures.map(({ name }, picture) => {
      const tab = words("button", name);
      tab.type = "button";
      tab.setAttribute("role", "tab");
      tab.addEventListener("click", () => turnTo(picture));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], next = tabs.children[picture + step];
        if (!next) return;
        event.stopPropagation();
        next.focus();
        turnTo(picture + step);
      });
      return tab;
    }));
  }
  [...tabs.children].forEach((tab, k) => tab.setAttribute("aria-selected", String(k === state.picture)));
}

function drawTokens(view) {
  refill(document.getElementById("prefix"), ...prefixNames(page.config).map((name, token) => {
    const isKnown = view.isAttention && view.query >= 0;
    const chip = words("button", name), value = words("span", isKnown ? number(view.tokens[token]) : "");
    chip.type = "button";
    chip.append(value);
    chip.setAttribute("aria-pressed", String(token === state.token));
    chip.addEventListener("click", () => choose({ token, method: "attention" }));
    return chip;
  }));
}

function drawMethods(view) {
  const stored = view.picture.maps.map(({ method }) => method), follow = live ? followedMethods(page.config) : [];
  const rest = [...new Set(stored)].filter((method) => !follow.includes(method));
  refill(document.getElementById("methods"), ...[...new Set(["attention", ...stored, ...follow])].map((method) => {
    const chip = words("button", plainName(method)), score = page.scores[method];
    if (score) chip.append(words("small", score));
    chip.type = "button";
    chip.disabled = view.changed && rest.includes(method);
    chip.setAttribute("aria-pressed", String(method === (view.isAttention ? "attention" : state.method)));
    chip.addEventListener("click", () => choose({ method }));
    return chip;
  }));
  const hint = document.getElementById("stale"), names = rest.map(plainName).join(", ");
  hint.textContent = [
    view.changed && rest.length && `Maps by ${names} are of the picture and model as they came and cannot follow: `
      + "this page does not compute them.",
    live && !rest.length && "Maps by other methods are not computed in this page: python visualize.py explain makes "
      + "them.",
    view.changed && state.method === "rollout" && "Rollout reads weights alone: heads and blocks that are off count.",
  ].filter(Boolean).join(" ");
  hint.hidden = !hint.textContent;
}

function plainName(method) {
  return method.replace(/_/g, " ");
}

// Another picture; the model sees it first where it has not.
async function turnTo(picture) {
  quiet();
  resetChanges();
  if (live && !passes.has(picture)) await see(picture);
  choose({ picture, word: START.word, pin: START.pin });
}

// ---- what is done ----------------------------------------------------------------------------------------

function choose(news) {
  state = fitted({ ...state, ...news }, page);
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
  document.querySelector("#changed button").addEventListener("click", () => {
    resetChanges();
    resetScene(page.pictures[state.picture]);
    document.getElementById("stage").focus({ preventScroll: true });   // the button goes
  });
  document.getElementById("link").hidden = location.protocol === "about:";   // a notebook's frame has no address
  for (const button of document.querySelectorAll("[data-ask]")) {
    button.addEventListener("click", () => choose({ ask: button.dataset.ask, method: "attention" }));
  }
  const stage = document.getElementById("stage");
  stage.addEventListener("pointermove", (event) => (dragged ? drag(event) : pointAt(event)));
  stage.addEventListener("pointerleave", () => read(viewOf(), null));
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, endDrag);
  // A finger on an object moves it, and not the page.
  stage.addEventListener("touchstart", (event) => dragged && event.preventDefault(), { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    const view = viewOf(), place = view ? placeUnder(view, event) : -1;
    if (place < 0 || view.caption) return;
    if (tools.chosen) return useTool(view, place);        // whose map is shown does not change
    if (!startDrag(view, event, place)) choose({ token: view.numPrefix + place, method: "attention" });
  });
  window.addEventListener("hashchange", async () => {
    const next = fitted(stateOf(location.hash), page);
    if (next.picture !== state.picture) await turnTo(next.picture);
    choose(next);
  });
  window.addEventListener("keydown", press);
}

function pointAt(event) {
  const view = viewOf(), place = view ? placeUnder(view, event) : -1;
  if (place >= 0) read(view, place);
}

// Says what the pointer is on, and without it the patch that is asked.
let pointed = null;

function read(view, place) {
  pointed = place;
  if (!view) return;
  const at = pointed === null || pointed >= view.values.length ? view.place : pointed;
  document.getElementById("readout").textContent = at >= 0 ? readPlace(view, at)
    : view.caption ? readWord(view) : "Point at a patch to read it, click to ask it.";
}

// A letter or a sign, which speech input or a slip types anywhere: it acts only where the focus is on what it is for
// (WCAG 2.1.4). A space presses buttons.
function isCharacter(key) {
  return key.length === 1 && key !== " ";
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  const view = viewOf(), { key } = event;
  if (!view || (isCharacter(key) && !event.target.closest("[data-keys]"))) return;
  if (view.caption && pressInCaption(key, view, choose)) return event.preventDefault();
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const heads = ["mean", "max", ...Array.from({ length: view.numHeads }, (_, head) => head)];
  if (steps[key] && !view.caption) {
    const { place } = view, [rows, cols] = view.grid;
    const from = place < 0 ? [Math.floor(rows / 2), Math.floor(cols / 2)] : [Math.floor(place / cols), place % cols];
    pointed = null;
    const row = Math.min(rows - 1, Math.max(0, from[0] + steps[key][0]));
    const col = Math.min(cols - 1, Math.max(0, from[1] + steps[key][1]));
    choose({ token: view.numPrefix + row * cols + col, method: "attention" });
  } else if (key === "[" || key === "]") {
    choose({ block: between(view.block + (key === "]" ? 1 : -1), 0, page.config.depth - 1), method: "attention" });
  } else if (key === "," || key === ".") {
    const at = heads.indexOf(state.head) + (key === "." ? 1 : heads.length - 1);
    choose({ head: heads[at % heads.length], method: "attention" });
  } else if (key === "r") {
    choose({ ask: state.ask === "row" ? "column" : "row", method: "attention" });
  } else if ((key === "Enter" || key === " ") && event.target.id === "stage" && tools.chosen && view.place >= 0) {
    useTool(view, view.place);
  } else if (key === "Escape") {
    quiet();
    chooseTool(null);
  } else return;
  event.preventDefault();
}

function savePicture() {
  const canvas = canvasToSave(viewOf());
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${shown(page.pictures[state.picture].name).replace(/\.\w+$/, "")}-map.png`;
    link.click();
  });
}

async function copyLink() {
  const button = document.getElementById("link");
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = isChanged() ? "Copied, without your changes" : "Copied";
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
  trouble.textContent = shown(text);
  trouble.hidden = false;
}

// What was said is over: another picture, another file, or Escape.
function quiet() {
  document.getElementById("trouble").hidden = true;
}

// ---- the running model -----------------------------------------------------------------------------------

let latest = null, untouched = new Map();                // logits of pictures before anything was changed

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
  Object.assign(page, { name, config, preprocess, labels, positionTable });
  document.getElementById("weights").textContent = shown(name);
  changes = noChanges();
  untouched.clear();
  latest = new Latest(async (number) => {
    const slow = setTimeout(() => showProgress("A pass over the picture"), 200);
    try {
      const asked = changes;
      const pass = await live.ask("run", { picture: page.pictures[number].pixels, changes: changesFor(changes) });
      passes.set(number, pass);
      if (pass.watched) pass.watched.asked = asked.watch;
      if (!untouched.has(number) && isUnchanged(asked)) untouched.set(number, pass.logits);
      const where = live.worker ? "" : ", in the page itself, which stands still meanwhile: no worker starts here";
      document.getElementById("pass").textContent = `${kernel}: ${pass.milliseconds.toFixed(0)} ms a pass${where}`;
      draw();
    } catch (error) {
      complain(error.message);
    } finally {
      clearTimeout(slow);
      showProgress(null);
    }
  });
  makeSwitches();
}

// A bar under the head while something takes its time; without a share it runs to and fro, with no name it goes.
function showProgress(name, share) {
  const bar = document.getElementById("progress");
  bar.hidden = !name;
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
  if (name) bar.setAttribute("aria-label", name);
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
  const rgba = context.getImageData(0, 0, width, height).data;
  return { pixels: toBytes(rgba, width * height), width, height, channels: 3 };
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
  picture.start = picture.start || picture.original;
  if (news.colour) drawSceneControls();                   // it has another name
  seeAnew(picture, composeScene(scene, picture.bodies));
}

async function seeAnew(picture, original) {
  picture.original = original;
  show(picture, await live.ask("view", { picture: original }));
  latest.ask(page.pictures.indexOf(picture));
}

// The scene as it came with the page.
function resetScene(picture) {
  if (!picture.start) return;
  const original = picture.start;
  Object.assign(picture, { start: null, bodies: null });
  drawnScene = null;
  seeAnew(picture, original);
}

// Where a pointer is on the scene, (row, column) in shorter sides.
function onScene(event, scene) {
  const box = document.querySelector("#stage canvas").getBoundingClientRect(), short = Math.min(...scene.size);
  return [(event.clientY - box.top) / box.height * scene.size[0] / short,
    (event.clientX - box.left) / box.width * scene.size[1] / short];
}

// The pointer takes hold of an object, if there is one, and says so. The token that is asked stays, so that its map
// can be followed; a click without a drag chooses the patch.
function startDrag(view, event, place) {
  const { scene } = view.picture;
  if (!live || !scene) return false;
  const [row, column] = onScene(event, scene), bodies = bodiesOf(view.picture);
  const index = bodyUnder(scene, bodies, row, column);
  if (index < 0) return false;
  dragged = { index, token: view.numPrefix + place, at: [event.clientX, event.clientY],
    from: [row - bodies[index].row, column - bodies[index].column] };
  document.getElementById("stage").setPointerCapture(event.pointerId);
  return true;
}

function endDrag({ type }) {
  const was = dragged;
  dragged = null;
  if (was && !was.moves && type === "pointerup") choose({ token: was.token, method: "attention" });
}

// A hand that shakes while it clicks moves nothing.
function drag(event) {
  const [x, y] = dragged.at;
  if (!dragged.moves && Math.hypot(event.clientX - x, event.clientY - y) < 4) return;
  dragged.moves = true;
  const [row, column] = onScene(event, page.pictures[state.picture].scene);
  changeBody(dragged.index, { row: row - dragged.from[0], column: column - dragged.from[1] });
}

function makeSwitches() {
  const section = document.getElementById("live");
  section.hidden = false;
  section.replaceChildren(words("h2", "The model, running here"), words("p", ""), document.createElement("table"));
  section.querySelector("p").id = "pass";
  const label = words("label", "Scores divided once more by ");
  const slider = document.createElement("input"), value = words("output", "1.00");
  Object.assign(slider, { type: "range", min: -20, max: 20, value: 0, id: "temperature", autocomplete: "off" });
  slider.addEventListener("input", () => {
    const temperature = 2 ** (slider.value / 5);
    value.textContent = temperature.toFixed(2);
    change({ temperature });
  });
  label.className = "block";
  label.htmlFor = slider.id;                              // else it names the output
  label.append(value, slider);
  const hint = words("p", "on: what the block adds. even: each token gets the same weight, whatever the scores.");
  hint.className = "hint";
  section.querySelector("table").after(hint);
  section.append(label);
  makePatchTools();
}

function change(news) {
  changes = { ...changes, ...news };
  latest.ask(state.picture);
}

function resetChanges() {
  chooseTool(null);
  if (!live) return;
  const wasUnchanged = isUnchanged(changes);
  changes = noChanges();
  if (wasUnchanged) return;
  const slider = document.getElementById("temperature");
  slider.value = 0;
  slider.previousElementSibling.textContent = "1.00";
  latest.ask(state.picture);
}

function isUnchanged(some) {
  return JSON.stringify({ ...some, watch: null }) === JSON.stringify(noChanges());
}

// Whether the picture or the model is another than the one whose maps came with the page.
function isChanged() {
  return !isUnchanged(changes) || Boolean(page.pictures[state.picture].start);
}
