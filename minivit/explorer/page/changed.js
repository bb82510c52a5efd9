// What a learner changed, in words, with the way back: what is shown is no longer the model and picture that came.

function drawChanged(view) {
  const line = document.getElementById("changed"), list = view.caption ? [] : changesInWords(view);
  line.hidden = !list.length;
  const said = line.querySelector("span"), text = `Changed: ${list.join("; ")}.`;
  if (list.length && said.textContent !== text) said.textContent = text;   // else it is read out anew
}

function changesInWords({ picture, grid }) {
  const { patches, headsOff, mlpsOff, blocksOff, uniform, temperature } = changes, list = [];
  if (picture.start) list.push("objects");
  for (const [block, heads] of Object.entries(headsOff)) {
    if (heads.length) list.push(`${heads.length > 1 ? "heads" : "head"} ${heads.join(", ")} of block ${block} off`);
  }
  for (const block of mlpsOff) list.push(`MLP of block ${block} off`);
  for (const block of blocksOff) list.push(`block ${block} off`);
  for (const block of uniform) list.push(`even attention in block ${block}`);
  if (temperature !== 1) list.push(`scores divided by ${temperature.toFixed(2)} more`);
  if (patches) {
    const away = grid[0] * grid[1] - patches.length, moved = patches.filter(([patch, place]) => patch !== place).length;
    if (away) list.push(`${away} ${away > 1 ? "patches" : "patch"} taken away`);
    if (moved) list.push(`${moved} patches moved`);
    if (!away && !moved) list.push("order of the tokens");
  }
  return list;
}
