// Elements without markup: text never becomes HTML.

/** An element with properties (`className`, `textContent`, …) and children. */
export function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
