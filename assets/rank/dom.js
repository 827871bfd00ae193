// Building the page. Texts enter it as text nodes only: nothing here, or anywhere else, parses HTML.

/** An element with attributes, listeners (`onclick`) and children (texts or nodes; `null` is left out). */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) set(element, key, value);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function set(element, key, value) {
  if (value === null || value === undefined || value === false) return;
  if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
  else element.setAttribute(key, value === true ? "" : String(value));
}

/** The element with this id, which the page has. */
export const byId = (id) => document.getElementById(id);

/** Puts these children in the place of those that are there. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== false));
}

/** Shows or hides. */
export function show(element, visible) {
  element.hidden = !visible;
}

/** `1 response`, `2 responses`. */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** The letter of a response, by its place on the page. */
export const letter = (place) => String.fromCharCode(65 + place);

/** `A`, `A and B`, `A, B and C`. */
export function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** Says something to a screen reader, without moving the focus. */
export function announce(text) {
  const region = byId("announcer");
  region.textContent = "";
  requestAnimationFrame(() => { region.textContent = text; });
}
