// The heads of the chosen block as small maps, with their mean and their largest.

function drawHeads(view, choose) {
  const strip = document.getElementById("heads");
  const names = ["mean", "max", ...Array.from({ length: view.numHeads }, (_, head) => head)];
  if (strip.childElementCount !== names.length) {
    strip.replaceChildren(...names.map((name) => {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      const caption = document.createElement("span");
      button.type = "button";
      caption.textContent = typeof name === "number" ? `head ${name}` : name;
      button.append(canvas, caption);
      button.addEventListener("click", () => choose({ head: name, method: "attention" }));
      return button;
    }));
  }
  names.forEach((name, k) => {
    const button = strip.children[k], canvas = button.querySelector("canvas");
    const chosen = view.isAttention && view.state.head === name;
    button.setAttribute("aria-pressed", String(chosen));
    const { state, block, query: token } = view;
    const tokens = lookedAt(view.attention, view.numHeads, { ...state, head: name, block, token });
    const values = onGrid(view, tokens);
    const cell = Math.max(1, Math.floor(96 / Math.max(...view.grid)));
    canvas.width = view.grid[1] * cell;
    canvas.height = view.grid[0] * cell;
    const range = rangeOf(values, false);
    drawMap(canvas.getContext("2d"), mapCanvas(values, view.grid, range, tableFor(view.state, false)), false);
    button.title = `${button.querySelector("span").textContent}: up to ${number(range.high)}`;
  });
}
