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
  const { page, lens, state } = view;
  document.getElementById("prediction").hidden = !lens;
  if (!lens) return;
  const last = probabilities(lens[lens.length - 1]);
  document.getElementById("classes").replaceChildren(...likeliest(last, 5).map((number) => {
    const button = document.createElement("button"), bar = document.createElement("i");
    button.type = "button";
    button.setAttribute("aria-pressed", String(view.target === number));
    bar.style.width = `${100 * last[number]}%`;
    button.append(bar, words("span", labelOf(page, number)), words("b", `${(100 * last[number]).toFixed(1)} %`));
    button.addEventListener("click", () => choose({ target: number }));
    return button;
  }));
  document.getElementById("lens").replaceChildren(...lens.map((logits, block) => {
    const row = document.createElement("tr"), shares = probabilities(logits), [best] = likeliest(shares, 1);
    row.append(words("th", block ? `block ${block - 1}` : "before"), words("td", labelOf(page, best)),
      words("td", `${(100 * shares[best]).toFixed(1)} %`));
    return row;
  }));
}

// An element with a text.
function words(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
