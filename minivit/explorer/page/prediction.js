// What the head says: the likeliest classes, and what it would say after each block.

function probabilities(logits) {
  const out = Float32Array.from(logits);
  softmax(out, out.length);
  return out;
}

function likeliest(values, count) {
  return Array.from(values.keys()).sort((a, b) => values[b] - values[a]).slice(0, count);
}

function labelOf(page, number) {
  return page.labels ? page.labels[number] : `class ${number}`;
}

function drawPrediction(view, choose) {
  const { page, lens, picture } = view;
  const section = document.getElementById("prediction");
  section.hidden = !lens;
  if (!lens) return;
  const last = probabilities(lens[lens.length - 1]), before = view.before && probabilities(view.before);
  const methods = classMethods(view), stored = new Set(methods.length ? picture.maps.map(({ target }) => target) : []);
  stored.delete(null);
  refill(document.getElementById("classes"), ...likeliest(last, 5).map((number) => {
    const button = document.createElement("button"), bar = document.createElement("i");
    button.type = "button";
    button.disabled = !stored.has(number);
    if (!button.disabled) button.setAttribute("aria-pressed", String(view.target === number));
    bar.style.width = `${100 * last[number]}%`;
    button.append(bar, words("span", labelOf(page, number)));
    if (before) button.append(words("small", `was ${percent(before[number])}`));
    button.append(words("b", percent(last[number])));
    // A class that is chosen is seen: by the map that is shown, where it knows classes, or by the first that does.
    button.addEventListener("click", () => choose({ target: number,
      method: methods.includes(view.state.method) ? view.state.method : methods[0] }));
    return button;
  }));
  section.querySelector(".hint").textContent = stored.size
    ? `Choose a class to see its map by ${methods.map(plainName).join(" or ")}; those of ${stored.size} are here.` : "";
  document.getElementById("lens").replaceChildren(...lens.map((logits, block) => {
    const row = document.createElement("tr"), shares = probabilities(logits), [best] = likeliest(shares, 1);
    row.append(words("th", block ? `block ${block - 1}` : "before"), words("td", labelOf(page, best)),
      words("td", percent(shares[best])));
    return row;
  }));
}

// Methods that explain a class and whose maps the page holds for the picture as it is.
function classMethods({ page, picture, changed }) {
  return changed ? [] : page.for_a_class.filter((name) => picture.maps.some(({ method }) => method === name));
}
