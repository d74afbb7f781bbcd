// Lists in the page that follow data: one element a key, made once, changed where it differs, moved only if it must.
import { exactTime } from "./format.js";

/** Set a text only if it is another one. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The exact time of a `<time>`, for machines and as its title; none for NaN. @param {Element} element @param {number} ms @param {string} words before it */
export function setExact(element, ms, words) {
  const machine = Number.isNaN(ms) ? null : new Date(ms).toISOString();
  if (element.getAttribute("datetime") === machine) return;
  setAttribute(element, "datetime", machine);
  setAttribute(element, "title", machine && words + exactTime(ms));
}

/** Set an attribute only if it is another one; null takes it away. @param {Element} element @param {string} name @param {string | null} value */
export function setAttribute(element, name, value) {
  if (value === null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// What many new rows cost is spread over some frames.
const NEW_AT_ONCE = 40;

/**
 * A function that shows these items. False: some new ones have still to come, show them again with the next frame.
 * @template Item
 * @param {Element} parent
 * @param {{ key: (item: Item) => string, create: (item: Item) => HTMLElement, update: (element: HTMLElement, item: Item) => void }} how
 * @returns {(items: Item[]) => boolean}
 */
export function keyedList(parent, { key, create, update }) {
  /** @type {Map<string, HTMLElement>} */
  let elements = new Map();
  return (items) => {
    /** @type {Map<string, HTMLElement>} */
    const wanted = new Map();
    let fresh = 0;
    for (const item of items) {
      const known = elements.get(key(item));
      if (!known && ++fresh > NEW_AT_ONCE) continue;
      const element = known ?? create(item);
      update(element, item);
      wanted.set(key(item), element);
    }
    const focused = document.activeElement;
    for (const [name, element] of elements) if (!wanted.has(name)) element.remove();
    let place = parent.firstElementChild;
    for (const element of wanted.values()) {
      if (element === place) place = place.nextElementSibling;
      else parent.insertBefore(element, place);
    }
    elements = wanted;
    if (focused !== document.activeElement) keepFocus(parent, focused);
    return fresh <= NEW_AT_ONCE;
  };
}

/** What was moved gets the focus back; from what is gone it goes to the list's heading, not to the top of the page. */
function keepFocus(/** @type {Element} */ parent, /** @type {Element} */ focused) {
  const home = parent.closest("section");
  const heading = home?.querySelector("[tabindex='-1']") ?? home;
  const target = focused.isConnected ? focused : heading;
  if (target instanceof HTMLElement) target.focus({ preventScroll: true });
}

/** A copy of a template's one element. @param {string} id */
export function copyOf(id) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(id));
  return /** @type {HTMLElement} */ (template.content.firstElementChild.cloneNode(true));
}

/** The element with this id. @param {string} id @returns {any} */
export function $(id) {
  return document.getElementById(id);
}
