// Jobs: search, page through, change several at once.

import { base, get } from "./api.js";
import { act } from "./actions.js";
import { button, choices, el, emptiness, moment, reconcile, say, set } from "./dom.js";
import { brief, count, inFull, plural, reason, time, worker8 } from "./format.js";

const STATES = ["enqueued", "scheduled", "running", "success", "failed", "cancelled"];
const LIVE = ["enqueued", "scheduled", "running"];
const PAGE = 50;
/** How long to wait after a key before searching, in milliseconds. */
const TYPING_MS = 250;
/** How many requests one page may take before a person is asked whether to go on. */
const TRIES_MAX = 20;
/** The most jobs that are chosen by name. */
const CHOSEN_MAX = 1000;

/** What a form's local time means in microseconds, or nothing. */
function micros(text) {
  const at = text ? new Date(text).getTime() : NaN;
  return Number.isNaN(at) ? null : at * 1000;
}

/** Which try of its phase a job is at, or ended with. */
export function tryOf(job) {
  const isNext = ["enqueued", "scheduled", "success"].includes(job.state);
  return Math.max(1, job.attempt + (isNext ? 1 : 0));
}

/** Where a job is that has just changed, as far as the overview tells. */
function reasonNow(job, pipeline) {
  const phase = pipeline.phases.find((each) => each.job_type === job.job_type);
  if (job.state === "scheduled") return "waits for its next try";
  if (job.state !== "enqueued" || !phase) return "";
  if (pipeline.state === "paused") return "the pipeline is paused";
  if (phase.paused) return `phase ${job.job_type} is paused`;
  return phase.workers ? `waits for a free slot: ${job.job_type} has ${phase.slots}` : `no worker runs ${job.job_type}`;
}

export function jobs(context) {
  const initial = context.parameters;
  const states = new Set((initial.get("state") ?? "").split(",").filter((state) => STATES.includes(state)));
  const input = (name, label, attributes = {}) => el("input", { type: "search", name, placeholder: label, "aria-label": label, ".value": initial.get(name) ?? "", on: { input: typed }, ...attributes });
  const fields = {
    id: input("id", "id begins with", { data: { search: "" } }),
    error: input("error", "error has"),
    text: input("text", "instructions have"),
  };
  const phase = el("select", { name: "phase", "aria-label": "Phase", on: { change: search } });
  const moments = (name) => el("input", { type: "datetime-local", step: "1", ".value": initial.get(name) ?? "", on: { change: search } });
  const [from, until] = [moments("from"), moments("until")];
  const chips = STATES.map((state) => button(state, () => toggle(state), { class: "chip", "aria-pressed": String(states.has(state)), data: { state } }));
  // What came with a link from another view: shown, and taken off with a click.
  const fixed = { worker: initial.get("worker") ?? "", group: initial.get("group") ?? "" };
  const fixedChips = el("span", { class: "row" });
  const rows = el("tbody", {});
  const all = el("input", { type: "checkbox", "aria-label": "Select all that are shown", on: { change: () => choose(all.checked) } });
  const head = (text, attributes = {}) => el("th", { scope: "col", ...attributes }, text);
  const table = el("table", { class: "list jobs" },
    el("thead", {}, el("tr", {}, head(all, { class: "change" }), head("Job"), head("State"), head("Phase"), head("In words"), head("Try", { class: "right", title: "which try of its phase" }), head("Enqueued"), head("Changed"))),
    rows);
  const told = el("span", { class: "faint", role: "status" });
  const newer = button("‹ Newer", () => turn(-1), { class: "quiet" });
  const older = button("Older ›", () => turn(1), { class: "quiet" });
  const foot = el("div", { class: "row foot" }, told, el("span", { class: "spring" }), newer, older);
  const fresh = button("", () => search(), { class: "quiet small", hidden: true });
  const found = new Map();
  const chosen = new Set();
  /** The cursor that each page begins after; the last one leads on. */
  let cursors = [null];
  let page = 0;
  let next = null;
  let lookedAt = 0;
  let running = null;
  let timer = null;
  let changes = 0;
  let trouble = "";
  /** All that fit are meant, not only those that are chosen one by one. */
  let everything = false;

  const everyButton = button("", () => { everything = !everything; view.draw(); }, { class: "quiet small" });
  const chosenBar = el("div", { class: "chosen change", hidden: true, role: "region", "aria-label": "Chosen jobs" },
    el("span", { role: "status" }), everyButton, el("span", { class: "spring" }),
    button("Retry", () => change("retry", "Retry", ""), { class: "small" }),
    button("Cancel", () => change("cancel", "Cancel", "danger"), { class: "danger small" }),
    button("Discard", () => change("discard", "Discard", "danger"), { class: "danger small" }),
    button("Choose none", () => choose(false), { class: "quiet small" }));

  function toggle(state) {
    if (states.has(state)) states.delete(state);
    else states.add(state);
    for (const chip of chips) set(chip, { "aria-pressed": String(states.has(chip.dataset.state)) });
    search();
  }

  function typed() {
    clearTimeout(timer);
    timer = setTimeout(search, TYPING_MS);
  }

  function parameters() {
    return {
      state: [...states].join(","), phase: phase.value,
      id: fields.id.value.trim(), error: fields.error.value.trim(), text: fields.text.value,
      worker: fixed.worker, group: fixed.group,
    };
  }

  /** The search as one that a change may name, or nothing where that is not possible. */
  function asFilter() {
    const { state, phase: job_type, id, error, text, worker, group } = parameters();
    if (states.size > 1 || text || worker || group || from.value || until.value) return null;
    return { ...(state && { state }), ...(job_type && { phase: job_type }), ...(error && { error }), ...(id && { id_prefix: id }) };
  }

  function search() {
    clearTimeout(timer);
    context.replace({ ...parameters(), from: from.value, until: until.value });
    chosen.clear();
    everything = false;
    cursors = [null];
    page = 0;
    lookedAt = 0;
    changes = 0;
    load();
  }

  function turn(by) {
    if (running || page + by < 0 || (by > 0 && !next)) return;
    if (by > 0) cursors = [...cursors.slice(0, page + 1), next];
    page += by;
    load();
    table.scrollIntoView({ block: "nearest" });
  }

  async function load() {
    running?.abort();
    const mine = new AbortController();
    running = mine;
    trouble = "";
    // The rows of before stay until there are others.
    let isFirst = true;
    next = cursors[page];
    view.draw();
    const times = { enqueued_from: micros(from.value), enqueued_before: micros(until.value) };
    try {
      // A rare text takes several requests: go on by ourselves for a while.
      for (let tries = 0; tries < TRIES_MAX; tries += 1) {
        const answer = await get(`${base(context.key)}/jobs`, { ...parameters(), ...times, limit: PAGE - (isFirst ? 0 : found.size), after: next }, { signal: mine.signal });
        if (isFirst) found.clear();
        isFirst = false;
        for (const job of answer.jobs) found.set(job.id, { ...job, try: tryOf(job) });
        lookedAt += answer.looked_at;
        next = answer.next;
        view.draw();
        if (!next || found.size >= PAGE) break;
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      trouble = error.message;
    }
    if (running === mine) running = null;
    view.draw();
  }

  function choose(on) {
    chosen.clear();
    everything = false;
    if (on) for (const id of found.keys()) chosen.add(id);
    view.draw();
  }

  async function change(action, verb, kind) {
    const text = { retry: "Failed jobs run again from the phase that failed.", cancel: "Jobs that have not ended are stopped and end as cancelled.", discard: "Failed jobs are forgotten; this cannot be undone." }[action];
    const filter = everything ? asFilter() : null;
    const what = filter ? "all jobs that fit the search" : plural(chosen.size, "job");
    const body = filter ? { action, filter } : { action, ids: [...chosen] };
    const answer = await act(context.key, body, { title: `${verb} ${what}?`, verb, kind, text });
    if (answer) search();
  }

  function row(job) {
    const box = el("input", { type: "checkbox", "aria-label": `Select ${job.id}`, on: { change: () => { if (box.checked && chosen.size < CHOSEN_MAX) chosen.add(job.id); else chosen.delete(job.id); everything = false; view.draw(); } } });
    return el("tr", {},
      el("td", { class: "change" }, el("label", { class: "tick" }, box)),
      el("td", {}, el("a", { class: "mono", href: context.href("job", [job.id]), title: job.id }, brief(job.id))),
      el("td", {}, el("span", { class: "state" })), el("td", {}), el("td", { class: "why" }), el("td", { class: "right" }), el("td", { class: "time" }, moment(0, "")), el("td", { class: "time" }, moment(0, "")));
  }

  function fill(node, job) {
    const [box, , state, phaseOf, why, attempt, enqueued, changed] = node.children;
    box.firstChild.firstChild.checked = chosen.has(job.id);
    say(state.firstChild, job.state);
    state.firstChild.dataset.state = job.state;
    say(phaseOf, job.job_type);
    const isBad = Boolean(job.error) && !["success", "running"].includes(job.state);
    const error = isBad ? job.error : "";
    const waits = job.state === "failed" || job.state === "cancelled" ? "" : reason(job.reason);
    say(why, [waits, error].filter(Boolean).join(": ") || (job.state === "running" && job.worker ? `at worker ${worker8(job.worker)}` : ""));
    why.classList.toggle("bad", isBad);
    if (why.title !== why.textContent) why.title = why.textContent;
    say(attempt, job.try);
    for (const [cell, at] of [[enqueued, job.enqueued_at], [changed, job.changed_at]]) {
      say(cell.firstChild, time(at));
      set(cell.firstChild, { title: inFull(at) });
    }
  }

  const empty = emptiness();
  const byTime = el("details", { open: Boolean(from.value || until.value) }, el("summary", {}, "by time"), el("div", { class: "row" }, el("label", {}, "enqueued from ", from), el("label", {}, "until ", until)));
  const view = {
    node: el("div", { class: "page" },
      el("div", { class: "row title" }, el("h1", {}, "Jobs"), el("span", { class: "spring" }), fresh),
      el("form", { class: "filters", role: "search", on: { submit: (event) => { event.preventDefault(); search(); } } },
        el("div", { class: "row", role: "group", "aria-label": "States" }, ...chips, fixedChips),
        el("div", { class: "row" }, fields.id, phase, fields.error, fields.text),
        byTime),
      el("div", { class: "scroll" }, table), empty.node, foot, chosenBar),
    stream: () => ({ topics: ["jobs"], pipeline: context.key }),
    heard(event, data) {
      if (event !== "jobs" || data.pipeline !== context.key) return;
      changes += data.jobs.length + data.left_out;
      for (const { id, at, ...news } of data.jobs) {
        const known = found.get(id);
        if (!known) continue;
        if (news.job_type !== known.job_type) known.try = 1;
        else if (news.state === "scheduled") known.try += 1;
        Object.assign(known, news, { changed_at: at });
        known.reason = reasonNow(known, context.pipeline());
      }
    },
    draw() {
      const pipeline = context.pipeline();
      choices(phase, "every phase", pipeline.phases.map((each) => each.job_type));
      for (const chip of chips) {
        const { state } = chip.dataset;
        const here = state === "failed" ? pipeline.failed : LIVE.includes(state) ? pipeline.phases.reduce((sum, each) => sum + each[state], 0) : null;
        say(chip, here === null ? state : `${state} ${count(here)}`);
      }
      reconcile(fixedChips, Object.entries(fixed).filter(([, value]) => value), ([name]) => name, ([name, value]) => button(`${name} ${name === "worker" ? worker8(value) : brief(value)} ✕`, () => { fixed[name] = ""; search(); }, { class: "chip", "aria-pressed": "true", title: `no longer only of this ${name}` }));
      reconcile(rows, found.values(), (job) => job.id, row, fill);
      all.checked = found.size > 0 && [...found.keys()].every((id) => chosen.has(id));
      chosenBar.hidden = chosen.size === 0;
      say(chosenBar.firstChild, everything ? "All jobs that fit the search" : `${plural(chosen.size, "job")} chosen`);
      everyButton.hidden = !everything && !(all.checked && (next || page) && asFilter());
      say(everyButton, everything ? "Only those shown" : "Choose all that fit the search");
      const busy = running !== null;
      table.hidden = !found.size;
      fresh.hidden = changes === 0;
      say(fresh, `${count(changes)} changes since: search again`);
      const isSearch = Object.values(parameters()).some(Boolean) || from.value || until.value;
      if (found.size || busy) empty.say("");
      else if (trouble) empty.say("The search did not work.", trouble);
      else if (next) empty.say("Nothing found so far.", `${count(lookedAt)} jobs were looked at; there are more.`);
      else if (isSearch) empty.say("No job fits.", "Ended jobs stay for a while, as the history allows.");
      else empty.say("No job has come yet.", "Send one:", `carbontube enqueue ${pipeline.api} ${pipeline.key} '{"hello": "world"}'`);
      const start = page * PAGE;
      const which = page === 0 && !next ? `${plural(found.size, "job")} found` : `jobs ${count(start + 1)} to ${count(start + found.size)}`;
      say(told, busy ? `searching… ${count(lookedAt)} looked at` : `${found.size ? which : "no job found"}, ${count(lookedAt)} looked at${next ? "" : ", that is all"}`);
      newer.hidden = page === 0;
      older.hidden = !next;
      say(older, found.size ? "Older ›" : "Go on ›");
      foot.classList.toggle("busy", busy);
    },
    close() {
      running?.abort();
      clearTimeout(timer);
    },
  };
  choices(phase, "every phase", context.pipeline().phases.map((each) => each.job_type), initial.get("phase") ?? "");
  load();
  return view;
}
