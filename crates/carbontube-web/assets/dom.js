// Building and updating elements. Text from jobs is only ever set as text.

/**
 * Makes an element.
 * `attributes`: `class`, `on` (listeners by event), `data` (data- attributes), properties
 * that start with `.`, and plain attributes; false and null leave an attribute out.
 */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  set(node, attributes);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
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
  const wanted = String(text);
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
    node.remove();
    known.delete(id);
  }
}

/** A button that does something. */
export function button(label, action, attributes = {}) {
  return el("button", { type: "button", ...attributes, on: { click: action } }, label);
}

/** What an empty list says. */
export function nothing(text, more = "") {
  return el("div", { class: "nothing" }, el("p", {}, text), more ? el("p", { class: "faint" }, more) : null);
}
