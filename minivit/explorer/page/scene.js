// A built-in scene whose objects a learner moves: drawn again from its layers, as in
// minivit/data/scenes/painting.py. Lengths are parts of the picture's shorter side, (row, column).

// {ground, light, noise} as floats (3, height, width), decoded once.
function layersOf(scene) {
  if (!scene.layers) {
    const floats = (reference) => {
      const bits = arrayOf(reference), out = new Float32Array(bits.length);
      halvesToFloats(bits, out);
      return out;
    };
    scene.layers = { ground: floats(scene.ground), light: floats(scene.light), noise: arrayOf(scene.noise) };
  }
  return scene.layers;
}

// The picture with these bodies: objects onto the ground, then light and grain onto all.
function composeScene(scene, bodies) {
  const { ground, light, noise } = layersOf(scene), [height, width] = scene.size, area = height * width;
  const image = ground.slice(), short = Math.min(height, width);
  for (const index of scene.order) {
    const body = bodies[index];
    if (body.hidden) continue;
    const { slope_row: slopeRow, slope_column: slopeColumn, stripe, phase, shift } = scene.paints[index];
    const colour = scene.colours[body.colour].map((level, c) => level + shift[c]);
    for (const [row, first, cover] of coverage(scene.outlines[body.shape], body, height, width)) {
      const down = ((row + 0.5) / short - body.row) / body.radius;
      for (let k = 0; k < cover.length; k++) {
        if (!cover[k]) continue;
        const right = ((first + k + 0.5) / short - body.column) / body.radius;
        const shade = 1 + 0.1 * slopeRow * down + 0.1 * slopeColumn * right
          + 0.06 * stripe * Math.sin(9 * (down + slopeRow * right) + 3 * phase);
        for (let c = 0; c < 3; c++) {
          const at = c * area + row * width + first + k;
          image[at] += cover[k] * (colour[c] * shade - image[at]);
        }
      }
    }
  }
  const pixels = new Uint8Array(area * 3);
  for (let c = 0; c < 3; c++) {
    for (let k = 0; k < area; k++) {
      const level = image[c * area + k] * light[c * area + k] + noise[c * area + k] * scene.grain;
      pixels[3 * k + c] = Math.min(255, Math.max(0, level));
    }
  }
  return { pixels, width, height, channels: 3 };
}

// Share of each pixel that a body covers, [[row, first column, shares], …]: 4 × 4 points a pixel, as Pillow
// draws polygons, whose corners lie on whole points and whose border belongs to it.
function coverage(outline, body, height, width) {
  const short = Math.min(height, width), cos = Math.cos(body.angle), sin = Math.sin(body.angle);
  const loops = outline.map((loop) => loop.map(([row, column]) => [
    short * (body.row + body.radius * (row * cos - column * sin)),
    short * (body.column + body.radius * (row * sin + column * cos)),
  ]));
  const rows = loops[0].map(([row]) => row), columns = loops[0].map(([, column]) => column);
  const top = Math.max(0, Math.floor(Math.min(...rows))), bottom = Math.min(height, Math.ceil(Math.max(...rows)));
  const left = Math.max(0, Math.floor(Math.min(...columns))), right = Math.min(width, Math.ceil(Math.max(...columns)));
  const wide = Math.max(0, right - left), high = Math.max(0, bottom - top);
  const points = new Uint8Array(16 * wide * high);
  loops.forEach((loop, hole) => {
    const corners = loop.map(([row, column]) => (
      [Math.trunc(4 * (row - top) - 0.5), Math.trunc(4 * (column - left) - 0.5)]));
    for (let line = 0; line < 4 * high; line++) {
      for (const [from, to] of [...spans(corners, line, 0), ...spans(corners, line, 1)]) {
        const start = line * 4 * wide;
        points.fill(hole ? 0 : 1, start + Math.max(0, from), start + Math.max(0, Math.min(4 * wide, to + 1)));
      }
    }
  });
  return Array.from({ length: high }, (_, y) => {
    const shares = new Float32Array(wide);
    for (let k = 0; k < 16 * wide; k++) shares[(k % (4 * wide)) >> 2] += points[16 * wide * y + k] / 16;
    return [top + y, left, shares];
  });
}

// Pieces of a line that lie inside a polygon, between crossings in pairs. A corner on the line belongs to what
// is below it (side 0) or above (side 1): both are drawn, as the border is inside.
function spans(corners, line, side) {
  const crossings = [];
  corners.forEach(([row, column], k) => {
    const [nextRow, nextColumn] = corners[(k + 1) % corners.length];
    if ((side ? row > line : row >= line) !== (side ? nextRow > line : nextRow >= line)) {
      crossings.push(column + (line - row) / (nextRow - row) * (nextColumn - column));
    }
  });
  crossings.sort((a, b) => a - b);
  const rounded = crossings.map(Math.round);
  return Array.from({ length: rounded.length >> 1 }, (_, k) => [rounded[2 * k], rounded[2 * k + 1]]);
}

// The object under a place of the picture, the one in front first; -1 for none.
function bodyUnder(scene, bodies, row, column) {
  return [...scene.order].reverse().find((index) => !bodies[index].hidden
    && Math.hypot(bodies[index].row - row, bodies[index].column - column) < bodies[index].radius) ?? -1;
}

// Rows of controls, one an object; `change(index, news)` is told what a learner sets.
function drawObjects(scene, bodies, change) {
  const section = document.getElementById("objects");
  section.hidden = !scene;
  if (!scene) return;
  refill(section.querySelector("div"), ...bodies.map((body, index) => {
    const row = document.createElement("fieldset"), legend = words("legend", `${body.colour} ${body.shape}`);
    const [colour, size, shown] = ["select", "input", "input"].map((tag) => document.createElement(tag));
    colour.append(...Object.keys(scene.colours).map((name) => new Option(name, name, false, name === body.colour)));
    colour.setAttribute("aria-label", `Colour of the ${body.colour} ${body.shape}`);
    colour.addEventListener("change", () => change(index, { colour: colour.value }));
    Object.assign(size, { type: "range", min: 5, max: 40, value: Math.round(100 * body.radius), autocomplete: "off" });
    size.setAttribute("aria-label", `Size of the ${body.colour} ${body.shape}`);
    size.addEventListener("input", () => change(index, { radius: size.value / 100 }));
    Object.assign(shown, { type: "checkbox", checked: !body.hidden, autocomplete: "off" });
    shown.setAttribute("aria-label", `${body.colour} ${body.shape} shown`);
    shown.addEventListener("change", () => change(index, { hidden: !shown.checked }));
    const sizeLabel = document.createElement("label"), shownLabel = document.createElement("label");
    sizeLabel.append("size", size);
    shownLabel.append(shown, "shown");
    row.append(legend, colour, sizeLabel, shownLabel);
    return row;
  }));
}
