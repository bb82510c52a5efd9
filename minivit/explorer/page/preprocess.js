// From a photo's pixels to a model's input, as minivit/preprocess.py and Pillow do it.
//
// A picture is {pixels: Uint8Array of (height, width, channels), width, height, channels}.

// What the model sees of a picture: resized and cropped, still bytes. `settings` is the checkpoint's
// preprocess; the picture has 3 channels, and gets 1 where the settings have one mean.
function view(picture, settings) {
  const grey = settings.mean.length === 1;
  const source = grey ? toGrey(picture) : picture;
  const { size, cut } = plan(source.width, source.height, settings);
  return crop(resize(source, size[0], size[1], settings.filter), cut);
}

// Bytes (height, width, channels) to floats (channels, height, width): (x / 255 - mean) / std in 32 bits.
function normalize(picture, settings) {
  const { width, height, channels } = picture, area = width * height;
  const pixels = new Float32Array(area * channels), round = Math.fround;
  for (let c = 0; c < channels; c++) {
    const mean = round(settings.mean[c]), std = round(settings.std[c]);
    for (let k = 0; k < area; k++) {
      pixels[c * area + k] = round(round(picture.pixels[k * channels + c] / 255) - mean) / std;
    }
  }
  return { pixels, width, height };
}

// ITU-R 601-2 luma in 16-bit integers, Pillow's mode L.
function toGrey({ pixels, width, height }) {
  const grey = new Uint8Array(width * height);
  for (let k = 0; k < grey.length; k++) {
    grey[k] = (19595 * pixels[3 * k] + 38470 * pixels[3 * k + 1] + 7471 * pixels[3 * k + 2] + 32768) >> 16;
  }
  return { pixels: grey, width, height, channels: 1 };
}

// {size: [width, height] of the resized picture, cut: [left, top, right, bottom]}; the modes are explained in
// minivit/preprocess.py.
function plan(width, height, settings) {
  const short = Math.min(width, height), long = Math.max(width, height);
  const [outHeight, outWidth] = settings.image_size, { mode, crop_fraction: fraction, multiple_of: step } = settings;
  if (mode === "fit_longest") {
    const scale = Math.max(outHeight, outWidth) / long;
    return whole([Math.max(1, Math.trunc(width * scale)), Math.max(1, Math.trunc(height * scale))]);
  }
  if (mode === "fit_shortest") {
    const twice = 2 * Math.min(outHeight, outWidth), perStep = short * step;
    const count = (side) => Math.max(1, Math.floor((twice * side + perStep) / (2 * perStep)));
    return whole([count(width) * step, count(height) * step]);
  }
  const wide = Math.floor(outWidth / fraction), high = Math.floor(outHeight / fraction);
  let size = [wide, high];
  if (mode === "crop" && wide === high) {
    const longer = Math.trunc(wide * long / short);
    size = width <= height ? [wide, longer] : [longer, wide];
  } else if (mode === "crop") {
    const ratio = Math.min(height / high, width / wide);
    size = [halfToEven(width / ratio), halfToEven(height / ratio)];
  }
  const centre = settings.crop_rounding === "even" ? halfToEven : Math.floor;
  const left = centre((size[0] - outWidth) / 2), top = centre((size[1] - outHeight) / 2);
  return { size, cut: [left, top, left + outWidth, top + outHeight] };
}

function whole(size) {
  return { size, cut: [0, 0, size[0], size[1]] };
}

// Python's round: a half goes to the even neighbour.
function halfToEven(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 ? floor + 1 : floor;
}

function crop({ pixels, width, height, channels }, [left, top, right, bottom]) {
  const out = new Uint8Array((right - left) * (bottom - top) * channels);
  for (let y = Math.max(0, top); y < Math.min(bottom, height); y++) {
    for (let x = Math.max(0, left); x < Math.min(right, width); x++) {
      for (let c = 0; c < channels; c++) {
        out[((y - top) * (right - left) + x - left) * channels + c] = pixels[(y * width + x) * channels + c];
      }
    }
  }
  return { pixels: out, width: right - left, height: bottom - top, channels };
}

// The method that Pillow documents: across, then down, bytes between; each new pixel is a weighted sum of
// old ones, with weights in integers of 22 bits. Where a side stays as it is, nothing is done to it. From
// version 13 on Pillow goes down first where the height loses more than twice what the width does; earlier
// versions are then a level apart here and there.
function resize(picture, width, height, filter) {
  const across = (one) => (width === one.width ? one : resizeRows(one, width, filter));
  const down = (one) => (height === one.height ? one : turn(resizeRows(turn(one), height, filter)));
  const downFirst = height < picture.height && picture.height - height > 2 * (picture.width - width);
  return downFirst ? across(down(picture)) : down(across(picture));
}

const FILTERS = {                                     // [reach in pixels of the smaller picture, weight at a distance]
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => {
    const t = Math.abs(x);
    if (t >= 1) return 0;
    return t === 0 ? 1 : Math.sin(Math.PI * t) / (Math.PI * t) * (0.54 + 0.46 * Math.cos(Math.PI * t));
  }],
  bicubic: [2, (x) => cubic(x, -0.5)],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function resizeRows({ pixels, width, height, channels }, newWidth, filter) {
  const out = new Uint8Array(newWidth * height * channels);
  const scale = width / newWidth;
  if (filter === "nearest") {
    // Pillow adds the step up from pixel to pixel, so that what it rounds is now and then below a whole number.
    const from = new Int32Array(newWidth);
    for (let x = 0, at = 0.5 * scale; x < newWidth; x++, at += scale) from[x] = Math.min(Math.trunc(at), width - 1);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < newWidth; x++) {
        for (let c = 0; c < channels; c++) {
          out[(y * newWidth + x) * channels + c] = pixels[(y * width + from[x]) * channels + c];
        }
      }
    }
    return { pixels: out, width: newWidth, height, channels };
  }
  const [reach, weight] = FILTERS[filter], wide = Math.max(scale, 1), support = reach * wide;
  for (let x = 0; x < newWidth; x++) {
    const centre = (x + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(width, Math.trunc(centre + support + 0.5));
    const weights = [];
    let sum = 0;
    for (let k = first; k < last; k++) {
      const value = weight((k - centre + 0.5) * (1 / wide));
      weights.push(value);
      sum += value;
    }
    const whole = weights.map((value) => {
      const scaled = value / sum * (1 << 22);
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    for (let y = 0; y < height; y++) {
      for (let c = 0; c < channels; c++) {
        let total = 1 << 21, at = (y * width + first) * channels + c;
        for (let k = 0; k < whole.length; k++, at += channels) total += whole[k] * pixels[at];
        out[(y * newWidth + x) * channels + c] = Math.min(255, Math.max(0, Math.floor(total / (1 << 22))));
      }
    }
  }
  return { pixels: out, width: newWidth, height, channels };
}

// Rows become columns.
function turn({ pixels, width, height, channels }) {
  const out = new Uint8Array(pixels.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) out[(x * height + y) * channels + c] = pixels[(y * width + x) * channels + c];
    }
  }
  return { pixels: out, width: height, height: width, channels };
}
