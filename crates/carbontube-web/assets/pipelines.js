// Every pipeline at a glance, when there are several.

import { el, reconcile, say } from "./dom.js";
import { count, old, rate, trouble } from "./format.js";
import { age, store } from "./store.js";

const REACH = { connecting: "not reached yet", lost: "manager lost" };

export function pipelines(href) {
  const list = el("div", { class: "cards" });

  function card(pipeline) {
    const cell = (label) => el("div", {}, el("dt", {}, label), el("dd", {}, "–"));
    const title = pipeline.key ? el("a", { href: href(pipeline.key, "map") }, pipeline.key) : pipeline.api;
    return el("article", { class: "card pipeline" },
      el("header", {}, el("h2", { title: pipeline.api }, title), el("span", { class: "state" })),
      el("dl", { class: "cells five" }, ...["in it", "finish", "waiting", "failed", "workers"].map(cell)),
      el("p", { class: "faint ids" }));
  }

  function fill(node, pipeline) {
    const [header, cells, more] = node.children;
    const status = REACH[pipeline.reach] ?? pipeline.state ?? "";
    say(header.lastChild, status);
    header.lastChild.dataset.state = pipeline.reach === "live" ? (pipeline.state ?? "") : pipeline.reach;
    node.dataset.status = pipeline.reach;
    const { available = 0, lost = 0 } = pipeline.workers ?? {};
    const waiting = pipeline.phases.reduce((sum, phase) => sum + phase.enqueued + phase.scheduled, 0);
    const values = pipeline.manager ? [count(pipeline.live), pipeline.reach === "live" ? rate(pipeline.rates?.done) : "–", count(waiting), count(pipeline.failed), lost ? `${available}, ${lost} lost` : available] : ["–", "–", "–", "–", "–"];
    values.forEach((value, index) => say(cells.children[index].lastChild, value));
    cells.children[3].lastChild.classList.toggle("bad", pipeline.failed > 0);
    cells.children[4].lastChild.classList.toggle("bad", lost > 0);
    say(more, `${pipeline.api}${pipeline.age_ms === null ? "" : ` · heard ${old(age(pipeline))} ago`}${pipeline.reach !== "live" && pipeline.trouble ? ` · ${trouble(pipeline)}` : ""}`);
  }

  return {
    node: el("div", { class: "page" }, el("div", { class: "row title" }, el("h1", {}, "Pipelines")), list),
    draw: () => reconcile(list, store.pipelines.values(), (pipeline) => pipeline.id, card, fill),
  };
}
