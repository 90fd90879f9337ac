// Building and updating elements. Text from jobs is only ever set as text.

import { inFull } from "./format.js";

// What moves a cursor, turns the reading direction or is invisible: as `harmless` of the
// protocol crate has it, but for line breaks and tabs, which a page may have.
const UNSHOWN = /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** A peer's text as it may be shown. */
export function harmless(text) {
  return String(text).replace(UNSHOWN, "\ufffd");
}

/**
 * Makes an element.
 * `attributes`: `class`, `on` (listeners by event), `data` (data- attributes), properties
 * that start with `.`, and plain attributes; false and null leave an attribute out.
 */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  set(node, attributes);
  const shown = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  node.append(...shown.map((child) => (typeof child === "string" ? harmless(child) : child)));
  return node;
}

/** Sets attributes, the same way as `el`. */
export function set(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (key === "data") {
      for (const [data, text] of Object.entries(value)) node.dataset[data] = text;
    } else if (key.startsWith(".")) {
      node[key.slice(1)] = value;
    } else if (value === false || value === null || value === undefined) {
      node.removeAttribute(key);
    } else {
      const text = value === true ? "" : String(value);
      if (node.getAttribute(key) !== text) node.setAttribute(key, text);
    }
  }
}

/** Sets a node's text, and touches it only when it differs. */
export function say(node, text) {
  const wanted = harmless(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/**
 * Makes the children of `parent` match `items`, keeping the nodes of items that were there
 * before, so that focus, selection and scrolling stay.
 */
export function reconcile(parent, items, key, create, update) {
  const known = (parent.known ??= new Map());
  const wanted = new Set();
  let place = parent.firstChild;
  for (const item of items) {
    const id = key(item);
    if (wanted.has(id)) continue;
    wanted.add(id);
    let node = known.get(id);
    if (!node) {
      node = create(item);
      known.set(id, node);
    }
    update?.(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  for (const [id, node] of known) {
    if (wanted.has(id)) continue;
    // Who stood on it with the keyboard must not be thrown to the top of the page.
    const held = node.contains(document.activeElement);
    node.remove();
    known.delete(id);
    if (held) document.getElementById("main").focus({ preventScroll: true });
  }
}

/** Fills a list of choices with names, and keeps what was chosen. */
export function choices(select, first, names, wanted = select.value) {
  const drawn = names.join("\n");
  if (select.drawn === drawn) return;
  select.drawn = drawn;
  select.replaceChildren(el("option", { value: "" }, first), ...names.map((name) => el("option", { value: name }, name)));
  select.value = wanted;
}

/** A button that does something. */
export function button(label, action, attributes = {}) {
  return el("button", { type: "button", ...attributes, on: { click: action } }, label);
}

/** A time as an element, with the whole of it as a title. */
export function moment(us, text, attributes = {}) {
  return el("time", { title: inFull(us), ...attributes }, text);
}

/**
 * What an empty list says: a sentence, what to do next, and a command to copy.
 * An empty `text` says nothing. Gives the node and `say`, which touches it only when it differs.
 */
export function emptiness() {
  const node = el("div", { class: "nothing", role: "status", hidden: true }, el("p", {}), el("p", { class: "faint" }), el("code", {}));
  return {
    node,
    say(text, more = "", command = "") {
      const [first, second, third] = node.children;
      node.hidden = !text;
      say(first, text);
      second.hidden = !more;
      say(second, more);
      third.hidden = !command;
      say(third, command);
    },
  };
}
