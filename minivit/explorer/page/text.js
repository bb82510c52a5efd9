// Text from outside, file names and labels, as it may be shown: always as text, never as HTML, and without
// characters that are not seen but turn the rest round or end a line. They appear as \u202e.

function shown(text) {
  return String(text).replace(/[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu,
    (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`);
}

// An element with a text.
function words(tag, text) {
  const element = document.createElement(tag);
  element.textContent = shown(text);
  return element;
}

// Fills an element anew; who was at its third button is at the third again.
function refill(container, ...children) {
  const stops = () => [...container.querySelectorAll("button, input, select")];
  const at = stops().indexOf(document.activeElement);
  container.replaceChildren(...children);
  if (at >= 0 && stops()[at]) stops()[at].focus({ preventScroll: true });
}
