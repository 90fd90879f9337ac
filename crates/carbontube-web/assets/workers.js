// Every worker: what it does, how it does, and when it was there.

import { act } from "./actions.js";
import { button, choices, el, emptiness, reconcile, say, set } from "./dom.js";
import { count, inFull, plural, roughly, span, time, worker8 } from "./format.js";
import { managerNow, store } from "./store.js";

/** How much of the past the strip of availability shows, in microseconds. */
const STRIP_US = 30 * 60e6;
/** How many cards are shown at most. */
const CARDS_MAX = 500;

/** What each status means; the ones to look at first come first. */
const MEANS = {
  lost: "was not heard for the worker timeout; its jobs went elsewhere",
  connecting: "is heard, but the manager cannot reach its address",
  draining: "finishes what it runs, then goes",
  available: "is heard and takes jobs",
  gone: "said goodbye",
};
const ORDER = Object.keys(MEANS);

function strip(worker, now) {
  const from = Math.max(now - STRIP_US, 0);
  const changes = worker.timeline;
  return changes.map((change, index) => {
    const start = Math.max(change.at, from);
    const end = Math.max(start, Math.min(changes[index + 1]?.at ?? now, now));
    return { status: change.status, since: change.at, left: ((start - from) / STRIP_US) * 100, width: ((end - start) / STRIP_US) * 100, end };
  }).filter((part) => part.end > from && part.width > 0);
}

function card(context, first) {
  const at = {};
  const cell = (name, label, title) => el("div", { title }, el("dt", {}, label), (at[name] = el("dd", {}, "–")));
  const state = el("span", { class: "state" });
  const bar = el("div", { class: "meter", role: "meter", "aria-valuemin": "0", "aria-label": "slots in use" }, el("i"));
  const [slots, ahead] = [el("span", {}), el("span", {})];
  const past = el("div", { class: "strip", role: "img" });
  const id = first.worker;
  const name = `${worker8(id)} on ${first.host}`;
  const drain = button("Drain", () => act(context.key, { action: "drain", worker: id }, { title: `Drain ${name}?`, verb: "Drain", text: "It finishes what it runs, hands the rest back, and goes." }), { class: "quiet small change", "aria-label": `Drain ${name}` });
  const jobs = el("a", { href: context.href("jobs", [], { worker: id }) });
  const node = el("article", { class: "card worker", "aria-label": `worker ${name}`, data: { worker: id } },
    el("header", {}, el("h2", {}, first.host, el("span", { class: "faint" }, ` · ${first.pid}`)), state),
    el("p", { class: "ids" }, first.job_type, el("span", { class: "faint" }, " · ", el("code", { title: id }, worker8(id)))),
    el("p", { class: "ids faint" }, `${first.address} · ${first.version}`),
    el("div", { class: "slots" }, bar, slots, ahead),
    el("dl", { class: "cells five" }, cell("score", "score", "successes of all results"), cell("done", "done"), cell("failed", "failed"), cell("heard", "heard", "since its last heartbeat"), cell("up", "runs for")),
    past,
    el("footer", {}, jobs, el("a", { href: context.href("logs", [], { worker: id }), "aria-label": `its logs, worker ${name}` }, "its logs"), drain));
  return { node, update(worker, now) {
    say(state, worker.status);
    state.dataset.state = worker.status;
    state.title = MEANS[worker.status] ?? "";
    node.dataset.status = worker.status;
    // As the manager counts: what a worker says of itself is a second old.
    const used = Math.min(worker.held, worker.slots);
    bar.firstChild.style.width = `${worker.slots ? (used / worker.slots) * 100 : 0}%`;
    set(bar, { "aria-valuemax": worker.slots, "aria-valuenow": used });
    say(slots, `${count(used)} of ${plural(worker.slots, "slot")}`);
    say(ahead, worker.held > worker.slots ? `${count(worker.held - worker.slots)} sent ahead` : "");
    const held = worker.held ? `its ${plural(worker.held, "job")}` : "its jobs";
    say(jobs, held);
    set(jobs, { "aria-label": `${held}, worker ${name}` });
    say(at.score, worker.score === null ? "–" : `${worker.score} %`);
    at.score.classList.toggle("bad", worker.score !== null && worker.score < 50);
    say(at.done, count(worker.success_count));
    say(at.failed, count(worker.failed_count));
    const silent = Math.max(0, now - worker.last_seen_at) / 1000;
    say(at.heard, silent < 2000 ? "now" : `${roughly(silent)} ago`);
    at.heard.title = inFull(worker.last_seen_at);
    say(at.up, worker.status === "lost" ? "–" : roughly(Math.max(0, now - worker.started_at) / 1000));
    at.up.title = `since ${inFull(worker.started_at)}`;
    drain.hidden = worker.status === "lost" || worker.status === "draining";
    const parts = strip(worker, now);
    reconcile(past, parts, (each) => each.since, () => el("i"), (each, { status, left, width, since }) => {
      each.dataset.state = status;
      each.style.left = `${left}%`;
      each.style.width = `${Math.max(width, 0.3)}%`;
      each.title = `${status} from ${time(since)}`;
    });
    set(past, { "aria-label": `Availability in the last half hour: ${parts.map((each) => `${each.status} from ${time(each.since)}`).join(", ")}` });
  } };
}

export function workers(context) {
  const cards = new Map();
  const wanted = new Set((context.parameters.get("status") ?? "").split(",").filter((status) => status in MEANS));
  const list = el("div", { class: "cards" });
  const empty = emptiness();
  const total = el("p", { class: "faint" });
  const more = el("p", { class: "faint", hidden: true }, `Only the first ${CARDS_MAX} are shown: narrow the search to see others.`);
  const phase = el("select", { "aria-label": "Phase", on: { change: changed } });
  const search = el("input", { type: "search", placeholder: "host, id, address", "aria-label": "Search workers", data: { search: "" }, ".value": context.parameters.get("text") ?? "", on: { input: changed } });
  const chips = ORDER.slice(0, 4).map((status) => button("", () => {
    if (wanted.has(status)) wanted.delete(status);
    else wanted.add(status);
    changed();
  }, { class: "chip", title: MEANS[status], data: { status } }));

  function changed() {
    context.replace({ phase: phase.value, status: [...wanted].join(","), text: search.value });
    view.draw();
  }

  const key = (status) => el("span", { class: "key", data: { state: status } }, status);
  const view = {
    node: el("div", { class: "page" },
      el("div", { class: "row title" }, el("h1", {}, "Workers"), el("span", { class: "spring" }), search, phase),
      el("div", { class: "row", role: "group", "aria-label": "States" }, ...chips, total),
      list, more, empty.node,
      el("p", { class: "faint keyline" }, "The strip is the last half hour, now at the right: ", ...["available", "connecting", "draining", "lost"].flatMap((status) => [key(status), " "]))),
    stream: () => ({ topics: ["workers"], pipeline: context.key }),
    draw() {
      const pipeline = context.pipeline();
      const names = pipeline.phases.map((each) => each.job_type);
      choices(phase, "all phases", names, phase.drawn === undefined ? (context.parameters.get("phase") ?? "") : phase.value);
      const now = managerNow(pipeline);
      const text = search.value.trim().toLowerCase();
      const known = [...(store.workers.get(context.key)?.values() ?? [])];
      const near = known
        .filter((worker) => !phase.value || worker.job_type === phase.value)
        .filter((worker) => !text || `${worker.host} ${worker.worker} ${worker.address} ${worker.pid}`.toLowerCase().includes(text));
      for (const chip of chips) {
        const { status } = chip.dataset;
        const here = near.filter((worker) => worker.status === status).length;
        say(chip, `${status} ${count(here)}`);
        chip.classList.toggle("alarm", status === "lost" && here > 0);
        set(chip, { "aria-pressed": String(wanted.has(status)) });
      }
      const fit = near.filter((worker) => !wanted.size || wanted.has(worker.status));
      const place = (worker) => names.indexOf(worker.job_type);
      fit.sort((a, b) => place(a) - place(b) || ORDER.indexOf(a.status) - ORDER.indexOf(b.status) || a.host.localeCompare(b.host) || a.started_at - b.started_at || (a.worker < b.worker ? -1 : 1));
      const taking = fit.filter((worker) => worker.status === "available");
      const slots = taking.reduce((sum, worker) => sum + worker.slots, 0);
      const used = taking.reduce((sum, worker) => sum + Math.min(worker.held, worker.slots), 0);
      say(total, fit.length ? `${plural(fit.length, "worker")}, ${count(used)} of ${plural(slots, "slot")} in use` : "");
      more.hidden = fit.length <= CARDS_MAX;
      reconcile(list, fit.slice(0, CARDS_MAX), (worker) => worker.worker, (worker) => {
        const made = card(context, worker);
        cards.set(worker.worker, made);
        return made.node;
      }, (_node, worker) => cards.get(worker.worker).update(worker, now));
      for (const id of cards.keys()) if (!list.known?.has(id)) cards.delete(id);
      list.hidden = !fit.length;
      if (fit.length) empty.say("");
      else if (known.length) empty.say("No worker fits.");
      else {
        const { manager } = pipeline;
        const to = manager?.pull[0] && manager?.sub[0] ? ` --push-connect=${manager.pull[0]} --pub-connect=${manager.sub[0]}` : "";
        empty.say("No worker has announced itself.", "Jobs wait until there is one. Start one for each phase:", `carbontube phase FILE ${names[0] ?? "JOB_TYPE"}${to}`);
      }
    },
  };
  // Ages go on between the manager's words.
  const clock = setInterval(() => document.hidden || view.draw(), 1000);
  view.close = () => clearInterval(clock);
  return view;
}
