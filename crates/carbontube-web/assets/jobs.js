// Jobs: search, page through, change several at once.

import { base, get } from "./api.js";
import { act } from "./actions.js";
import { button, el, nothing, reconcile, say, set } from "./dom.js";
import { brief, count, plural, time } from "./format.js";

const STATES = ["enqueued", "scheduled", "running", "success", "failed", "cancelled"];
const PAGE = 50;
/** How many rows the table keeps at most. */
const ROWS_MAX = 2000;
/** How long to wait after a key before searching, in milliseconds. */
const TYPING_MS = 250;

/** What a form's local time means in microseconds, or nothing. */
function micros(text) {
  const at = text ? new Date(text).getTime() : NaN;
  return Number.isNaN(at) ? null : at * 1000;
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
  const from = el("input", { type: "datetime-local", step: "1", on: { change: search } });
  const until = el("input", { type: "datetime-local", step: "1", on: { change: search } });
  const chips = STATES.map((state) => button(state, () => toggle(state), { class: "chip", "aria-pressed": String(states.has(state)), data: { state } }));
  // What came with a link from another view: shown, and taken off with a click.
  const fixed = { worker: initial.get("worker") ?? "", group: initial.get("group") ?? "" };
  const fixedChips = el("span", { class: "row" });
  const rows = el("tbody", {});
  const all = el("input", { type: "checkbox", "aria-label": "Select all that are shown", on: { change: () => choose(all.checked) } });
  const table = el("table", { class: "list jobs" },
    el("thead", {}, el("tr", {}, el("th", { class: "change" }, all), el("th", {}, "Job"), el("th", {}, "State"), el("th", {}, "Phase"), el("th", {}, "Why"), el("th", { class: "right" }, "Attempt"), el("th", {}, "Enqueued"), el("th", {}, "Changed"))),
    rows);
  const foot = el("div", { class: "row foot" });
  const chosenBar = el("div", { class: "chosen change", hidden: true, role: "region", "aria-label": "Chosen jobs" });
  const fresh = button("", () => search(), { class: "quiet small", hidden: true });
  const found = new Map();
  const chosen = new Set();
  let next = null;
  let lookedAt = 0;
  let running = null;
  let timer = null;
  let changes = 0;
  let trouble = "";

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

  function search() {
    clearTimeout(timer);
    context.replace(parameters());
    found.clear();
    chosen.clear();
    next = null;
    lookedAt = 0;
    changes = 0;
    more();
  }

  async function more() {
    running?.abort();
    const mine = new AbortController();
    running = mine;
    trouble = "";
    view.draw();
    const times = { enqueued_from: micros(from.value), enqueued_before: micros(until.value) };
    try {
      const before = found.size;
      // A rare text takes several requests: go on by ourselves for a while.
      for (let tries = 0; tries < 20; tries += 1) {
        const answer = await get(`${base(context.key)}/jobs`, { ...parameters(), ...times, limit: PAGE, after: next }, { signal: mine.signal });
        for (const job of answer.jobs) found.set(job.id, job);
        lookedAt += answer.looked_at;
        next = answer.next;
        view.draw();
        if (!next || found.size - before >= PAGE) break;
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
    if (on) for (const id of found.keys()) chosen.add(id);
    view.draw();
  }

  async function change(action, verb, kind) {
    const ids = [...chosen];
    const answer = await act(context.key, { action, ids }, { title: `${verb} ${plural(ids.length, "job")}?`, verb, kind, text: { retry: "Failed jobs run again from the phase that failed.", cancel: "Jobs that have not ended are stopped and end as cancelled.", discard: "Failed jobs are forgotten; this cannot be undone." }[action] });
    if (answer) search();
  }
  chosenBar.append(el("span", {}), button("Retry", () => change("retry", "Retry", "")), button("Cancel", () => change("cancel", "Cancel", "danger")), button("Discard", () => change("discard", "Discard", "danger")), button("Choose none", () => choose(false), { class: "quiet" }));

  function row(job) {
    const box = el("input", { type: "checkbox", "aria-label": `Select ${job.id}`, on: { change: () => { if (box.checked) chosen.add(job.id); else chosen.delete(job.id); view.draw(); } } });
    return el("tr", {},
      el("td", { class: "change" }, box),
      el("td", {}, el("a", { class: "mono", href: context.href("job", [job.id]), title: job.id }, brief(job.id))),
      el("td", {}, el("span", { class: "state" })), el("td", {}), el("td", { class: "why" }), el("td", { class: "right" }), el("td", { class: "time" }), el("td", { class: "time" }));
  }

  function fill(node, job) {
    const [box, , state, phaseOf, why, attempt, enqueued, changed] = node.children;
    box.firstChild.checked = chosen.has(job.id);
    say(state.firstChild, job.state);
    state.firstChild.dataset.state = job.state;
    say(phaseOf, job.job_type);
    say(why, job.error ?? job.reason ?? "");
    why.classList.toggle("bad", Boolean(job.error));
    why.title = why.textContent;
    say(attempt, job.attempt);
    say(enqueued, time(job.enqueued_at));
    say(changed, time(job.changed_at));
  }

  let drawnPhases = null;
  const empty = el("div", {});
  const view = {
    node: el("div", { class: "page" },
      el("div", { class: "row title" }, el("h1", {}, "Jobs"), el("span", { class: "spring" }), fresh),
      el("form", { class: "filters", role: "search", on: { submit: (event) => { event.preventDefault(); search(); } } },
        el("div", { class: "row", role: "group", "aria-label": "States" }, ...chips, fixedChips),
        el("div", { class: "row" }, fields.id, phase, fields.error, fields.text),
        el("details", {}, el("summary", {}, "by time"), el("div", { class: "row" }, el("label", {}, "enqueued from ", from), el("label", {}, "until ", until)))),
      el("div", { class: "scroll" }, table), empty, foot, chosenBar),
    stream: () => ({ topics: ["jobs"], pipeline: context.key }),
    heard(event, data) {
      if (event !== "jobs" || data.pipeline !== context.key) return;
      changes += data.jobs.length + data.left_out;
      for (const job of data.jobs) {
        const known = found.get(job.id);
        if (known) Object.assign(known, { state: job.state, job_type: job.job_type, error: job.error, changed_at: job.at, reason: "" });
      }
    },
    draw() {
      const names = context.pipeline().phases.map((each) => each.job_type);
      if (drawnPhases !== names.join("\n")) {
        drawnPhases = names.join("\n");
        phase.replaceChildren(el("option", { value: "" }, "every phase"), ...names.map((name) => el("option", { value: name }, name)));
        phase.value = initial.get("phase") ?? "";
      }
      reconcile(fixedChips, Object.entries(fixed).filter(([, value]) => value), ([name]) => name, ([name, value]) => button(`${name} ${brief(value)} ✕`, () => { fixed[name] = ""; search(); }, { class: "chip", "aria-pressed": "true", title: `no longer only of this ${name}` }));
      const shown = [...found.values()].slice(0, ROWS_MAX);
      reconcile(rows, shown, (job) => job.id, row, fill);
      all.checked = chosen.size > 0 && chosen.size === found.size;
      chosenBar.hidden = chosen.size === 0;
      say(chosenBar.firstChild, `${plural(chosen.size, "job")} chosen`);
      table.hidden = shown.length === 0;
      fresh.hidden = changes === 0;
      say(fresh, `${count(changes)} changes since: search again`);
      const [busy, full] = [running !== null, found.size >= ROWS_MAX];
      empty.replaceChildren(...(shown.length || busy ? [] : [trouble ? nothing("The search did not work.", trouble) : nothing(next ? "Nothing yet." : "No job fits.", next ? "" : "Ended jobs stay for a while, as the history allows.")]));
      const text = `${plural(found.size, "job")} found, ${count(lookedAt)} looked at${busy ? ", searching…" : next ? "" : ", that is all"}`;
      foot.replaceChildren(el("span", { class: "faint", role: "status" }, text), ...(next && !busy && !full ? [button(found.size ? "More" : "Go on", more, { class: "quiet" })] : []), ...(full ? [el("span", { class: "faint" }, "Narrow the search to see others.")] : []));
    },
    close() {
      running?.abort();
      clearTimeout(timer);
    },
  };
  view.draw();
  more();
  return view;
}
