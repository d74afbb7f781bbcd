// Lists in the page that follow data: one element a key, made once, changed where it differs, moved only if it must.

/** Set a text only if it is another one. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute only if it is another one; null takes it away. @param {Element} element @param {string} name @param {string | null} value */
export function setAttribute(element, name, value) {
  if (value === null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * @template Item
 * @param {Element} parent
 * @param {{ key: (item: Item) => string, create: (item: Item) => HTMLElement, update: (element: HTMLElement, item: Item) => void }} how
 * @returns {(items: Item[]) => void}
 */
export function keyedList(parent, { key, create, update }) {
  /** @type {Map<string, HTMLElement>} */
  let elements = new Map();
  return (items) => {
    /** @type {Map<string, HTMLElement>} */
    const wanted = new Map();
    for (const item of items) {
      const element = elements.get(key(item)) ?? create(item);
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
