// What a learner brings: photos of their own, and a checkpoint that then runs here.

// Files from a drop anywhere on the page, or from the button; two at a time would come back in any order.
async function openFiles(files) {
  quiet();
  for (const file of files) {
    try {
      if (file.name.endsWith(".safetensors")) await openCheckpoint(file);
      else await openPhoto(file);
    } catch (error) {
      complain(`${file.name}: ${error.message}`);
    }
  }
}

// A file's pixels as Pillow reads them: turned as EXIF says, colour profiles not looked at, transparency on white.
async function pixelsOfFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer()), grey = await readGrey16(bytes).catch(() => null);
  if (grey) return grey;
  let bitmap;
  try {
    // Left to itself Chromium has its WebP decoder multiply by alpha, which cuts digits off where Pillow rounds.
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("this browser cannot decode it; save it as JPEG or PNG");
  }
  const { width, height } = bitmap, context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const picture = { pixels: toBytes(rgba, width * height), width, height, channels: 3 };
  bitmap.close();
  const orientation = webpOrientation(bytes);
  return orientation > 1 && !await turnsWebp() ? upright(picture, orientation) : picture;
}

// RGBA to RGB; what is see-through lies on white.
function toBytes(rgba, count) {
  const pixels = new Uint8Array(3 * count);
  for (let k = 0; k < count; k++) {
    const alpha = rgba[4 * k + 3];
    for (let c = 0; c < 3; c++) {
      const level = rgba[4 * k + c];
      pixels[3 * k + c] = alpha === 255 ? level : Math.round((level * alpha + 255 * (255 - alpha)) / 255);
    }
  }
  return pixels;
}

function canvasOf({ pixels, width, height, channels }) {
  const canvas = new OffscreenCanvas(width, height), rgba = new ImageData(width, height);
  for (let k = 0; k < width * height; k++) {
    for (let c = 0; c < 3; c++) rgba.data[4 * k + c] = pixels[channels * k + (channels === 3 ? c : 0)];
    rgba.data[4 * k + 3] = 255;
  }
  canvas.getContext("2d").putImageData(rgba, 0, 0);
  return canvas;
}

async function openPhoto(file) {
  if (!live) throw new Error("no model runs in this page: drop a .safetensors of minivit's first");
  page.pictures.push({ name: file.name, original: await pixelsOfFile(file), maps: [] });
  resetChanges();
  await see(page.pictures.length - 1);
  choose({ picture: page.pictures.length - 1, token: 0, method: "attention" });
}

// The bytes of a file, with a bar that says how much is here.
async function bytesOf(file, progress) {
  const bytes = new Uint8Array(file.size), reader = file.stream().getReader();
  let at = 0;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    bytes.set(piece.value, at);
    at += piece.value.length;
    progress(at / file.size);
  }
  return bytes.buffer;
}

// A checkpoint takes the place of the page's model: pictures are seen anew, and maps that were stored are gone.
async function openCheckpoint(file) {
  if (file.size > 400e6) throw new Error(`${Math.round(file.size / 1e6)} MB are too many for a page: at most 400`);
  const name = `Reading ${shown(file.name)}`;
  try {
    const checkpoint = await bytesOf(file, (share) => showProgress(name, share));
    showProgress(name);
    const engine = live || new Live(document.getElementById("numerics").textContent);
    const opened = await engine.ask("open", { checkpoint, kernel: arrayOf(page.kernel) });
    Object.assign(page, { positions: null, scores: {} });  // those of the model that was there
    useModel(engine, { ...opened, name: file.name });
    for (const picture of page.pictures) Object.assign(picture, { maps: [], stored: null, lens: null, pixels: null });
    passes.clear();
    await see(Math.min(state.picture, page.pictures.length - 1));
    choose({ token: 0, block: -1, head: "mean", method: "attention" });
  } finally {
    showProgress(null);
  }
}

function listenForFiles() {
  const input = document.getElementById("files");
  input.addEventListener("change", () => { openFiles([...input.files]); input.value = ""; });
  document.getElementById("open").addEventListener("click", () => input.click());
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    openFiles([...event.dataTransfer.files]);
  });
}
