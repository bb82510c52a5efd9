// A caption as words to step through: each word's map over the picture, and what else was likely at its steps.

let pointedWord = null;                                 // the word under the pointer, shown while it is there

// What `viewOf` gives for a captioner.
function captionView(page, state, picture, image) {
  const { depth, num_heads: numHeads } = page.config, { caption, grid } = picture;
  const last = caption.words.length - 1;
  const block = state.block < 0 ? state.block + depth : state.block, pinned = state.pin;
  const word = pointedWord !== null && pointedWord <= last ? pointedWord : state.word;
  const chosen = pinned === null ? [word] : [word, pinned];
  const isAttention = state.method !== "word_relevance" || !hasRelevance(caption, chosen);
  const attention = new StepAttention(caption, isAttention ? state.align : "predicts");
  const show = (head) => shownMaps(attention, caption.words, chosen, { ...state, block, head });
  const maps = isAttention ? show(state.head) : shownRelevance(caption, chosen);
  return { page, state, picture, image, caption, attention, grid, block, numHeads, word, pinned, isAttention,
    place: -1, box: picture.box, values: maps.values[0], maps, signed: maps.signed, range: maps.range, ends: maps.ends,
    shades: maps.shades[0], ofHead: (head) => {
      const { shades, range, signed, ends } = show(head);
      return { values: shades[0], range, signed, ends };
    } };
}

// ---- what is drawn ---------------------------------------------------------------------------------------

function drawCaption(view, choose) {
  drawWords(view, choose);
  drawPinned(view);
  drawNextWords(view);
  drawBeams(view);
  drawWordMethods(view, choose);
  document.getElementById("relative").checked = view.isAttention && view.state.relative;
  for (const button of document.querySelectorAll("[data-align]")) {
    button.setAttribute("aria-checked", String(button.dataset.align === view.attention.align));
  }
}

let drawnCaption = null;

// The sentence as chips. They are made once a picture, so that the one with the focus keeps it.
function drawWords(view, choose) {
  const group = document.getElementById("words");
  if (drawnCaption !== view.caption) {
    drawnCaption = view.caption;
    pointedWord = null;
    group.replaceChildren(...view.caption.words.map(({ text, probability, end }, word) => {
      const chip = words("button", ""), name = words("bdi", text);
      chip.type = "button";
      chip.setAttribute("role", "radio");
      chip.append(name, words("small", share(probability)));
      if (end) chip.className = "end";
      chip.addEventListener("click", () => choose({ word }));
      chip.addEventListener("pointerenter", ({ pointerType }) => pointerType === "mouse" && pointTo(word));
      chip.addEventListener("pointerleave", () => pointTo(null));
      return chip;
    }));
  }
  [...group.children].forEach((chip, word) => {
    chip.setAttribute("aria-checked", String(word === view.state.word));
    chip.tabIndex = word === view.state.word ? 0 : -1;
    chip.classList.toggle("pinned", word === view.pinned);
    chip.classList.toggle("pointed", word === view.word);
  });
  const pin = document.getElementById("pin");
  const nameOfPin = shown(view.caption.words[view.pinned ?? view.word].text);
  pin.textContent = `${view.pinned === null ? "Pin" : "Unpin"} “${nameOfPin}”`;
  pin.setAttribute("aria-pressed", String(view.pinned !== null));
}

function pointTo(word) {
  pointedWord = word;
  draw();
}

// The pinned word's map on the left of the chosen one's, both on one scale.
function drawPinned(view) {
  const frame = document.getElementById("pinned"), isPinned = view.pinned !== null;
  frame.hidden = !isPinned;
  document.getElementById("word-shown").hidden = !isPinned;
  if (!isPinned) return;
  frame.querySelector("figcaption").textContent = `pinned: ${nameOf(view, view.pinned)}`;
  document.getElementById("word-shown").textContent = nameOf(view, view.word);
  paintPicture(frame.querySelector("canvas"), { ...view, shades: view.maps.shades[1] });
}

// What the decoder held likely at the steps that are shown.
function drawNextWords(view) {
  const { caption, attention, word } = view, section = document.getElementById("next");
  section.replaceChildren(words("h2", "Likeliest next words"), ...attention.stepsOf(word).flatMap((number) => {
    const step = caption.steps[number], title = words("h3", `step ${number} reads “`);
    title.append(words("bdi", step.reads), "”");
    if (step.predicts === undefined && caption.words.at(-1).end) return [title, words("p", "The sentence is over.")];
    const rows = step.next.map((text, rank) => [text, step.probabilities[rank], rank === step.rank]);
    if (step.rank >= rows.length) rows.push([step.predicts, step.probability, true, step.rank]);
    const list = document.createElement("ol");
    list.append(...rows.map(([text, probability, isTaken, rank]) => {
      const row = words("li", ""), bar = document.createElement("i");
      bar.style.width = `${100 * probability}%`;
      row.append(bar, words("bdi", text), words("b", percent(probability)));
      if (isTaken) {
        row.className = "taken";
        row.querySelector("bdi").after(words("small", rank ? `in the sentence, rank ${rank + 1}` : "in the sentence"));
      }
      return row;
    }));
    return [title, list];
  }));
}

function drawBeams(view) {
  const { beams } = view.picture, section = document.getElementById("beams");
  section.hidden = beams.length < 2;
  section.querySelector("tbody").replaceChildren(...beams.map(({ text, score, ended }) => {
    const row = document.createElement("tr"), sentence = document.createElement("td");
    sentence.append(words("bdi", text || "(no word)"), ended ? "" : " … (cut)");
    row.append(sentence, words("td", score.toFixed(3)));
    return row;
  }));
}

// ---- what is read ----------------------------------------------------------------------------------------

function nameOf(view, word) {
  const { text, probability } = view.caption.words[word];
  return `“${shown(text)}” ${share(probability)}`;
}

// What is read where the pointer is on no cell.
function readWord(view) {
  const [strongest] = likeliest(view.values, 1);
  return `${nameOf(view, view.word)}, strongest at ${readCell(view, strongest)}`;
}

function share(probability) {
  return probability > 0.005 ? probability.toFixed(2) : "<0.01";
}

function readCell(view, place) {
  const [own, pinned] = view.maps.values.map((map) => {
    const sum = view.isAttention ? 1 : map.reduce((total, value) => total + value, 0) || 1;
    const times = map[place] / sum * map.length;
    if (view.isAttention && view.state.relative) return `${number(map[place])} × the average word`;
    return `${number(map[place])}, ${timesOver(times)} × even`;
  });
  const where = `row ${Math.floor(place / view.grid[1])}, column ${place % view.grid[1]}`;
  return `${where}: ${own}${pinned ? `; pinned: ${pinned}` : ""}`;
}

// Which weights these are, and how much of the step's attention they make up.
function massOfWord(view) {
  if (!view.isAttention) return massOfRelevance(view);
  const { state, block } = view;
  const does = state.align === "reads" ? "reads" : "says";
  const where = `decoder block ${block}, ${nameOfHead(state.head)}, at the step that ${does} the word`;
  if (state.relative) return `${where}; divided by the mean over the words`;
  if (state.head === "max") return where;
  const sum = view.values.reduce((total, value) => total + value, 0);
  return `${where}; ${percent(sum)} of its attention to the picture is shown, on ${view.values.length} cells`;
}

// ---- what is done ----------------------------------------------------------------------------------------

// The page of a captioner has other parts than that of a Vision Transformer, and runs no model.
function startCaptions(choose) {
  for (const id of ["prediction", "places", "prefix", "open"]) document.getElementById(id).hidden = true;
  document.querySelector(".ask").hidden = true;
  for (const element of document.querySelectorAll(".of-caption")) element.hidden = false;
  const stage = document.getElementById("stage");
  stage.setAttribute("role", "img");
  stage.setAttribute("aria-label", "The picture with the word's map; its strongest cell is read out below");
  stage.removeAttribute("tabindex");
  document.getElementById("keys").textContent = "Keys: left and right step through the words. While the focus "
    + "is on the sentence, on the picture or in this panel, [ and ] choose a block, , and . a head, r says or reads, "
    + "d divides by the mean, p pins the word.";
  for (const button of document.querySelectorAll("[data-align]")) {
    button.addEventListener("click", () => choose(
      { align: button.dataset.align, method: "attention" }));
  }
  document.getElementById("relative").addEventListener("change", ({ target }) => choose(
    { relative: target.checked, method: "attention" }));
  document.getElementById("pin").addEventListener("click", () => togglePin(viewOf(), choose));
}

function togglePin(view, choose) {
  choose({ pin: view.pinned === null ? view.word : null });
}

// Whether a key means something to a caption.
function pressInCaption(key, view, choose) {
  const { state } = view, last = view.caption.words.length - 1;
  const wordOf = { ArrowLeft: state.word - 1, ArrowRight: state.word + 1, Home: 0, End: last };
  if (Object.hasOwn(wordOf, key)) {
    const word = between(wordOf[key], 0, last), group = document.getElementById("words");
    pointedWord = null;
    choose({ word });
    if (group.contains(document.activeElement)) group.children[word].focus();
  } else if (key === "r") {
    choose({ align: view.attention.align === "reads" ? "predicts" : "reads", method: "attention" });
  } else if (key === "d") choose({ relative: !(view.isAttention && state.relative), method: "attention" });
  else if (key === "p") togglePin(view, choose);
  else return false;
  return true;
}

// The map as it is saved: with the pinned one on its left, where there is one.
function canvasToSave(view) {
  const canvas = document.querySelector("#stage canvas");
  if (!view.caption || view.pinned === null) return canvas;
  const both = document.createElement("canvas"), context = both.getContext("2d"), gap = 16;
  both.width = 2 * canvas.width + gap;
  both.height = canvas.height;
  context.drawImage(document.querySelector("#pinned canvas"), 0, 0);
  context.drawImage(canvas, canvas.width + gap, 0);
  return both;
}
