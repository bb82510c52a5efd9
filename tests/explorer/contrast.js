// [[contrast, text], …] of every element with a text of its own, as WCAG 2.2 defines it: its colour against what
// lies behind it, see-through colours mixed.
() => {
  const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pixel.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (top, under) => [0, 1, 2].map((c) => top[c] * top[3] + under[c] * (1 - top[3]));
  const ancestors = (element) => (element ? [...ancestors(element.parentElement), element] : []);
  const behind = (element) => ancestors(element).map((one) => rgba(getComputedStyle(one).backgroundColor))
    .reduce((under, top) => over(top, under), [255, 255, 255]);
  const linear = (level) => (level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => rgb.reduce((sum, level, c) => sum + linear(level / 255) * [0.2126, 0.7152, 0.0722][c], 0);

  const hasText = (element) => element.tagName === "SELECT"
    || [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  return [...document.body.querySelectorAll("*:not(script, style, option)")]
    .filter((element) => hasText(element) && element.checkVisibility({ visibilityProperty: true }))
    .map((element) => {
      const under = behind(element), colour = rgba(getComputedStyle(element).color);
      for (const one of ancestors(element)) colour[3] *= Number(getComputedStyle(one).opacity);
      const [light, dark] = [luminance(over(colour, under)), luminance(under)].sort((a, b) => b - a);
      return [(light + 0.05) / (dark + 0.05), `${element.tagName} ${element.textContent.trim().slice(0, 40)}`];
    });
}
