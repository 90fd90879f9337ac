// The event log: what the manager, workers and people did.

import { button, el, emptiness, moment, reconcile, say, set } from "./dom.js";
import { plural, time } from "./format.js";
import { store } from "./store.js";

const KINDS = ["manager", "worker", "action", "web"];

export function events(context) {
  const wanted = new Set(KINDS);
  const list = el("ol", { class: "notes" });
  const empty = emptiness();
  const status = el("p", { class: "faint" });
  const search = el("input", { type: "search", placeholder: "text has", "aria-label": "Search events", data: { search: "" }, on: { input: () => view.draw() } });
  const chips = KINDS.map((kind) => button(kind, () => {
    if (wanted.has(kind)) wanted.delete(kind);
    else wanted.add(kind);
    view.draw();
  }, { class: "chip", data: { kind } }));
  const view = {
    node: el("div", { class: "page" }, el("div", { class: "row title" }, el("h1", {}, "Events"), el("span", { class: "spring" }), search), el("div", { class: "row", role: "group", "aria-label": "Kinds" }, ...chips), status, list, empty.node),
    draw() {
      for (const chip of chips) set(chip, { "aria-pressed": String(wanted.has(chip.dataset.kind)) });
      const text = search.value.toLowerCase();
      const all = store.notes.get(context.key) ?? [];
      const shown = all.filter((note) => wanted.has(note.kind) && (!text || note.text.toLowerCase().includes(text))).slice(-500).reverse();
      say(status, shown.length ? `${plural(shown.length, "event")}, newest first` : "");
      reconcile(list, shown, (note) => `${note.at} ${note.text}`, (note) => el("li", { data: { kind: note.kind } }, moment(note.at, time(note.at)), el("span", { class: "chip", data: { kind: note.kind } }, note.kind), el("span", {}, note.text)));
      empty.say(shown.length ? "" : all.length ? "No event fits." : "Nothing has happened yet.", shown.length || all.length ? "" : "Workers that come and go, what people change and how the manager is stand here.");
    },
  };
  return view;
}
