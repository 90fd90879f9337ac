// Everything that changes something: asked first, done, and told.

import { ApiError, base, post } from "./api.js";
import { button, el } from "./dom.js";

/** How long a message stays, in milliseconds; what went wrong stays until it is closed. */
const STAYS_MS = 8000;
/** How many messages are shown at once. */
const TOASTS_MAX = 4;

/** Shows a short message. */
export function toast(text, kind = "good") {
  const [polite, urgent] = document.getElementById("toasts").children;
  const node = el("div", { class: `toast ${kind}` }, el("span", {}, text), button("✕", () => node.remove(), { class: "quiet small", "aria-label": "Close this message" }));
  const place = kind === "bad" ? urgent : polite;
  place.append(node);
  while (place.children.length > TOASTS_MAX) place.firstChild.remove();
  if (kind === "bad") return;
  // Not while somebody reads it.
  const leave = () => (node.matches(":hover, :focus-within") ? setTimeout(leave, 1000) : node.remove());
  setTimeout(leave, STAYS_MS);
}

/** Opens the dialog; resolves with what `content` gives to `close`, or null. */
export function dialog(title, content) {
  const node = document.getElementById("dialog");
  return new Promise((resolve) => {
    const close = (value) => {
      node.onclose = null;
      node.close();
      resolve(value);
    };
    node.onclose = () => resolve(null);
    node.replaceChildren(el("h2", { id: "dialog-title" }, title), ...content(close));
    node.showModal();
  });
}

/** Asks whether to do something. */
export function confirm(title, text, verb, kind = "") {
  return dialog(title, (close) => [
    el("p", { id: "dialog-text" }, text),
    // What cannot be undone is not one careless Enter away.
    el("div", { class: "row end" }, button("No", () => close(false), { class: "quiet", autofocus: kind === "danger" }), button(verb, () => close(true), { class: kind, autofocus: kind !== "danger" })),
  ]);
}

/**
 * Does an action and says what was done.
 * `verb` stands on the dialog's button; the sentence is the server's own, or `text` when
 * the server would not ask. Resolves with the answer, or null when nothing was done.
 */
export async function act(key, body, { title, verb, text = null, kind = "" }) {
  const path = `${base(key)}/actions`;
  try {
    if (text !== null) {
      if (!(await confirm(title, text, verb, kind))) return null;
      body = { ...body, confirm: true };
    }
    let answer;
    try {
      answer = await post(path, body);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "confirm") throw error;
      const sentence = error.message.replace(/; confirm it with .*$/, "");
      if (!(await confirm(title, `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`, verb, kind))) return null;
      answer = await post(path, { ...body, confirm: true });
    }
    const skipped = answer.skipped ? `, ${answer.skipped} could not be changed` : "";
    toast(`Done: ${answer.done}${skipped}.`);
    return answer;
  } catch (error) {
    toast(`Not done: ${error.message}.`, "bad");
    return null;
  }
}
