// Every worker: what it does, how it does, and when it was there.

import { act } from "./actions.js";
import { button, el, nothing, reconcile, say, set } from "./dom.js";
import { brief, count, plural, span, time } from "./format.js";
import { managerNow, store } from "./store.js";

/** How much of the past the strip of availability shows, in microseconds. */
const STRIP_US = 30 * 60e6;
const ORDER = { lost: 0, connecting: 1, draining: 2, available: 3, gone: 4 };

/** What a status means, as a title. */
const MEANS = {
  available: "is heard and takes jobs",
  connecting: "is heard, but the manager cannot reach its address",
  draining: "finishes what it runs, then goes",
  lost: "was not heard for the worker timeout; its jobs went elsewhere",
  gone: "said goodbye",
};

function strip(worker, now) {
  const from = Math.max(now - STRIP_US, 0);
  const changes = worker.timeline;
  return changes.map((change, index) => {
    const start = Math.max(change.at, from);
    const end = Math.max(start, Math.min(changes[index + 1]?.at ?? now, now));
    return { status: change.status, start, left: ((start - from) / STRIP_US) * 100, width: ((end - start) / STRIP_US) * 100, end };
  }).filter((part) => part.end > from && part.width > 0);
}

function card(context, first) {
  const at = {};
  const cell = (name, label, title) => el("div", { title }, el("dt", {}, label), (at[name] = el("dd", {}, "–")));
  const state = el("span", { class: "state" });
  const bar = el("div", { class: "meter", role: "meter", "aria-valuemin": "0", "aria-label": "slots in use" }, el("i"));
  const past = el("div", { class: "strip", role: "img" });
  const id = first.worker;
  const drain = button("Drain", () => act(context.key, { action: "drain", worker: id }, { title: "Drain this worker?", verb: "Drain", text: "It finishes what it runs, hands the rest back, and goes." }), { class: "quiet small change" });
  const node = el("article", { class: "card worker", data: { worker: id } },
    el("header", {}, el("h3", {}, first.host, el("span", { class: "faint" }, ` · ${first.pid}`)), state),
    el("p", { class: "faint ids", title: id }, `${first.job_type} · ${brief(id)} · ${first.address}`),
    el("div", { class: "slots" }, bar, el("span", {})),
    el("dl", { class: "cells" }, cell("score", "score", "successes of all results"), cell("done", "done"), cell("failed", "failed"), cell("heard", "heard", "since its last heartbeat"), cell("up", "since")),
    past,
    el("footer", {}, el("a", { href: context.href("jobs", [], { worker: id }) }, "its jobs"), el("a", { href: context.href("logs", [], { worker: id }) }, "its logs"), drain));
  return { node, update(worker, now) {
    say(state, worker.status);
    state.dataset.state = worker.status;
    state.title = MEANS[worker.status] ?? "";
    node.dataset.status = worker.status;
    const part = worker.slots ? Math.min(1, worker.running / worker.slots) : 0;
    bar.firstChild.style.width = `${part * 100}%`;
    set(bar, { "aria-valuemax": worker.slots, "aria-valuenow": worker.running });
    const ahead = Math.max(0, worker.held - worker.running);
    say(bar.nextSibling, `${count(worker.running)} of ${plural(worker.slots, "slot")}${ahead ? `, ${count(ahead)} more held` : ""}`);
    say(at.score, worker.score === null ? "–" : `${worker.score} %`);
    at.score.classList.toggle("bad", worker.score !== null && worker.score < 50);
    say(at.done, count(worker.success_count));
    say(at.failed, count(worker.failed_count));
    say(at.heard, `${span(Math.max(0, now - worker.last_seen_at) / 1000)} ago`);
    say(at.up, time(worker.started_at));
    drain.hidden = worker.status === "lost" || worker.status === "draining";
    const parts = strip(worker, now);
    reconcile(past, parts, (each) => each.start, () => el("i"), (each, { status, left, width, start }) => {
      each.dataset.state = status;
      each.style.left = `${left}%`;
      each.style.width = `${Math.max(width, 0.3)}%`;
      each.title = `${status} from ${time(start)}`;
    });
    set(past, { "aria-label": `Availability in the last half hour: ${parts.map((each) => `${each.status} from ${time(each.start)}`).join(", ")}` });
  } };
}

export function workers(context) {
  const cards = new Map();
  const list = el("div", { class: "cards" });
  const empty = el("div", {});
  const total = el("p", { class: "faint" });
  const phase = el("select", { "aria-label": "Phase", on: { change: () => { context.replace({ phase: phase.value }); view.draw(); } } });
  const search = el("input", { type: "search", placeholder: "host, id, address", "aria-label": "Search workers", data: { search: "" }, on: { input: () => view.draw() } });
  let drawnPhases = null;
  const view = {
    node: el("div", { class: "page" },
      el("div", { class: "row title" }, el("h1", {}, "Workers"), el("span", { class: "spring" }), search, phase),
      total, list, empty,
      el("p", { class: "faint" }, "The strip shows the last half hour: ", el("span", { class: "key", data: { state: "available" } }, "available"), " ", el("span", { class: "key", data: { state: "connecting" } }, "connecting"), " ", el("span", { class: "key", data: { state: "draining" } }, "draining"), " ", el("span", { class: "key", data: { state: "lost" } }, "lost"))),
    stream: () => ({ topics: ["workers"], pipeline: context.key }),
    moved: () => true,
    draw() {
      const pipeline = context.pipeline();
      const names = pipeline.phases.map((each) => each.job_type);
      if (drawnPhases !== names.join("\n")) {
        drawnPhases = names.join("\n");
        phase.replaceChildren(el("option", { value: "" }, "all phases"), ...names.map((name) => el("option", { value: name }, name)));
        phase.value = context.parameters.get("phase") ?? "";
      }
      const now = managerNow(pipeline);
      const wanted = search.value.toLowerCase();
      const known = [...(store.workers.get(context.key)?.values() ?? [])];
      const fit = known
        .filter((worker) => !phase.value || worker.job_type === phase.value)
        .filter((worker) => !wanted || `${worker.host} ${worker.worker} ${worker.address}`.toLowerCase().includes(wanted));
      const place = (worker) => names.indexOf(worker.job_type);
      fit.sort((a, b) => place(a) - place(b) || ORDER[a.status] - ORDER[b.status] || a.host.localeCompare(b.host) || a.started_at - b.started_at || (a.worker < b.worker ? -1 : 1));
      const slots = fit.reduce((sum, worker) => sum + (worker.status === "available" ? worker.slots : 0), 0);
      const running = fit.reduce((sum, worker) => sum + worker.running, 0);
      say(total, fit.length ? `${plural(fit.length, "worker")}, ${count(running)} of ${plural(slots, "slot")} in use` : "");
      reconcile(list, fit.slice(0, 500), (worker) => worker.worker, (worker) => {
        const made = card(context, worker);
        cards.set(worker.worker, made);
        return made.node;
      }, (_node, worker) => cards.get(worker.worker).update(worker, now));
      for (const id of cards.keys()) if (!list.known?.has(id)) cards.delete(id);
      empty.replaceChildren(...(fit.length ? [] : [known.length ? nothing("No worker fits.") : nothing("No worker has announced itself.", "Start one with carbontube phase FILE JOB_TYPE.")]));
    },
  };
  const clock = setInterval(() => view.draw(), 1000);
  view.close = () => clearInterval(clock);
  return view;
}
