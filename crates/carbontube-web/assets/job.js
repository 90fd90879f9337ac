// One job: where it is and why, what was tried, what it said.

import { base, get } from "./api.js";
import { act } from "./actions.js";
import { button, el, emptiness, moment, reconcile, say } from "./dom.js";
import { brief, bytes, failure, micros, plural, reason, time, worker8 } from "./format.js";
import { tryOf } from "./jobs.js";
import { lineNode } from "./lines.js";
import { managerNow } from "./store.js";

/** Lines kept on the page. */
const LINES_MAX = 500;
/** The shortest pause between two loads while a job changes, in milliseconds. */
const PAUSE_MS = 300;
const ENDED = new Set(["success", "failed", "cancelled"]);
const MEANS = {
  success: "It went through all phases.",
  failed: "It failed for good, and is kept until it is retried or discarded.",
  cancelled: "It was cancelled.",
};

/** A bar on the time from the enqueueing until now or the end. */
function bar(from, to, start, end) {
  const whole = Math.max(1, to - from);
  const node = el("i");
  const left = Math.min(99.5, Math.max(0, ((start - from) / whole) * 100));
  node.style.left = `${left}%`;
  node.style.width = `${Math.min(100 - left, Math.max(0.5, ((end - start) / whole) * 100))}%`;
  return node;
}

/** One try: how it ended, when it ran in the job's life, how long it waited and ran, where. */
function tryNode(context, { what, state, track, ran, waited, worker, at, error }) {
  return el("li", { class: "try", data: { state } },
    el("span", { class: "what" }, what),
    el("span", { class: "track", "aria-hidden": "true" }, track),
    el("span", { class: "ran" }, ran),
    el("span", { class: "faint" }, waited),
    el("span", { class: "faint" }, at ? moment(at, time(at)) : "", worker ? " at " : "", worker ? el("a", { class: "mono", href: context.href("workers", [], { text: worker }), title: `worker ${worker}` }, worker8(worker)) : ""),
    error ? el("p", { class: "bad" }, error) : null);
}

function phaseStep(context, name, index, detail, now) {
  const { job, attempts } = detail;
  const past = job.phase > index || job.state === "success";
  const here = job.phase === index && job.state !== "success";
  const status = past ? "success" : here ? job.state : "later";
  const [from, to] = [job.enqueued_at, ENDED.has(job.state) ? job.changed_at : now];
  // What came before an attempt: its waiting is the gap between.
  let free = Math.max(job.enqueued_at, ...attempts.filter((each) => each.phase < index).map((each) => each.finished_at));
  const mine = attempts.filter((attempt) => attempt.phase === index);
  const tries = mine.map((attempt, number) => {
    const started = attempt.duration_us === null ? attempt.finished_at : attempt.started_at;
    const gap = Math.max(0, started - free);
    free = attempt.finished_at;
    return tryNode(context, {
      what: `${number + 1}. ${attempt.failure ? failure(attempt.failure) : "success"}`, state: attempt.failure ? "failed" : "success",
      track: bar(from, to, started, attempt.finished_at),
      ran: attempt.duration_us === null ? "–" : micros(attempt.duration_us), waited: attempt.duration_us === null ? "" : `after ${micros(gap)}`,
      worker: attempt.worker, at: started, error: attempt.error,
    });
  });
  if (here && job.state === "running") {
    tries.push(tryNode(context, { what: `${mine.length + 1}. running`, state: "running", track: bar(from, to, job.changed_at, to), ran: micros(Math.max(0, to - job.changed_at)), waited: `after ${micros(Math.max(0, job.changed_at - free))}`, worker: job.worker, at: job.changed_at }));
  }
  return el("li", { class: "step", data: { state: status } },
    el("h3", {}, name, el("span", { class: "state", data: { state: status } }, status === "later" ? "not yet" : status === "success" ? "done" : status)),
    tries.length ? el("ol", { class: "tries" }, ...tries) : el("p", { class: "faint" }, past ? "Done; how long it took is no longer kept." : here ? "No try has ended." : "Waits for the phases before it."));
}

export function job(context) {
  const id = context.rest[0] ?? "";
  const state = el("span", { class: "state", role: "status" });
  const why = el("p", { class: "why lead" });
  const body = el("div", { class: "stack" });
  const progress = el("div", { class: "progress", hidden: true }, el("progress", { max: "1", "aria-label": "progress" }), el("span", {}));
  const lines = el("ol", { class: "lines", "aria-label": "log lines", tabindex: "0" });
  const lineCount = el("span", { class: "faint" });
  const steps = el("ol", { class: "steps" });
  const missing = emptiness();
  let known = [];
  let detail = null;
  let trouble = null;
  let loading = false;
  let again = false;
  let left = 0;
  let timer = null;
  let closed = false;
  const actions = el("span", { class: "row change" },
    button("Retry", () => change("retry", "Retry", "It runs again from the phase that failed.")),
    button("Cancel", () => change("cancel", "Cancel it", "It is stopped and ends as cancelled.", "danger"), { class: "danger" }),
    button("Discard", () => change("discard", "Discard", "The failed job is forgotten; this cannot be undone.", "danger"), { class: "danger" }));

  async function change(action, verb, text, kind = "") {
    const answer = await act(context.key, { action, ids: [id] }, { title: `${verb} ${brief(id)}?`, verb, text, kind });
    if (answer) load();
  }

  async function load() {
    // What changes while an answer is on its way is asked for once more.
    if (loading) {
      again = true;
      return;
    }
    loading = true;
    try {
      detail = await get(`${base(context.key)}/jobs/${encodeURIComponent(id)}`);
      trouble = null;
      add(detail.logs?.lines ?? []);
      if (detail.progress) moved(detail.progress);
      build();
    } catch (error) {
      trouble = error;
    }
    loading = false;
    if (closed) return;
    view.draw();
    if (again) {
      again = false;
      timer = setTimeout(load, PAUSE_MS);
    }
  }

  function add(lines) {
    const all = new Map([...known, ...lines].map((line) => [line.seq, line]));
    known = [...all.values()].sort((a, b) => a.at - b.at || a.seq - b.seq).slice(-LINES_MAX);
  }

  function moved(item) {
    progress.hidden = ENDED.has(detail?.job.state);
    const [bar, text] = progress.children;
    if (item.fraction === null) bar.removeAttribute("value");
    else bar.value = item.fraction;
    say(text, `${item.fraction === null ? "" : `${Math.round(item.fraction * 100)} % `}${item.text ?? ""}`);
  }

  function build() {
    const { job: it, phases, instructions, error } = detail;
    const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
    const at = (us) => moment(us, time(us));
    const shown = instructions.json !== undefined ? JSON.stringify(instructions.json, null, 2) : (instructions.text ?? "");
    body.replaceChildren(
      el("dl", { class: "facts" },
        fact("enqueued", at(it.enqueued_at)),
        fact(ENDED.has(it.state) ? "ended" : "changed", at(it.changed_at)),
        ...(ENDED.has(it.state) ? [fact("took in all", micros(it.changed_at - it.enqueued_at))] : []),
        fact("phase", `${it.phase + 1} of ${phases.length}`),
        ...(it.state === "success" ? [] : [fact("try", String(tryOf(it)))]),
        ...(detail.not_before ? [fact("not before", at(detail.not_before))] : []),
        ...(detail.traceparent ? [fact("traceparent", el("code", {}, detail.traceparent))] : [])),
      error ? el("section", { class: "card error" }, el("h2", {}, "Why it failed ", el("span", { class: "state", data: { state: "failed" } }, failure(detail.failure))), el("p", { class: "bad" }, error.message), error.detail ? el("pre", { tabindex: "0", "aria-label": "details of the error" }, error.detail) : "") : "",
      el("h2", {}, "Through the phases"),
      steps,
      el("div", { class: "row" }, el("h2", {}, it.state === "success" ? "Result" : "Instructions as they are now"), el("span", { class: "faint" }, bytes(instructions.bytes)), instructions.bytes ? el("a", { href: instructions.href, download: "" }, "download") : ""),
      shown ? el("pre", { class: "data", tabindex: "0", "aria-label": "instructions" }, shown) : el("p", { class: "faint" }, "Not kept."),
      instructions.truncated ? el("p", { class: "faint" }, "Only the beginning is shown.") : "");
    trace();
  }

  /** Draws the way through the phases; what runs grows with time. */
  function trace() {
    const now = managerNow(context.pipeline());
    steps.replaceChildren(...detail.phases.map((name, index) => phaseStep(context, name, index, detail, now)));
  }

  const view = {
    node: el("div", { class: "page" },
      el("p", { class: "crumb" }, el("a", { href: context.href("jobs") }, "‹ Jobs")),
      el("div", { class: "row title" }, el("h1", { class: "mono" }, id), state, el("span", { class: "spring" }), actions),
      why, progress, missing.node, body,
      el("div", { class: "row" }, el("h2", {}, "Log"), lineCount, el("a", { href: `/api/v1/logs?${new URLSearchParams({ pipeline: context.key, job: id, download: 1, limit: 5000 })}`, download: "" }, "download"), el("a", { href: context.href("logs", [], { job: id }) }, "follow")),
      lines),
    stream: () => ({ topics: ["jobs", "progress", "logs"], pipeline: context.key, job: id }),
    heard(event, data) {
      if (event === "hello" && detail) load();
      if (event === "jobs" && data.jobs.some((each) => each.id === id)) load();
      if (event === "progress") for (const item of data.items) if (item.job === id) moved(item);
      if (event === "logs") {
        left += data.left_out;
        add(data.lines.filter((line) => line.job === id));
      }
    },
    draw() {
      const it = detail?.job;
      say(state, it?.state ?? "");
      state.dataset.state = it?.state ?? "";
      const runs = it?.state === "running" ? `It runs ${it.job_type}${it.worker ? ` at worker ${worker8(it.worker)}` : ""}.` : "";
      const waits = it?.reason ? `It ${/^waits/.test(it.reason) ? "" : "waits: "}${reason(it.reason)}.` : "";
      say(why, !it ? "" : waits || runs || MEANS[it.state] || "");
      const [retry, cancel, discard] = actions.children;
      retry.hidden = discard.hidden = it?.state !== "failed";
      cancel.hidden = !it || ENDED.has(it.state);
      if (it && ENDED.has(it.state)) progress.hidden = true;
      if (!trouble) missing.say("");
      else if (trouble.code === "unknown_job") missing.say("No such job is known.", "It may have been discarded, or the history no longer has it.");
      else missing.say("It could not be loaded.", trouble.message);
      say(lineCount, known.length ? plural(known.length, "line") + (left ? `, ${left} left out` : "") : "no line yet");
      reconcile(lines, known, (line) => line.seq, (line) => lineNode(context, line));
    },
    close() {
      closed = true;
      clearTimeout(timer);
      clearInterval(clock);
    },
  };
  const clock = setInterval(() => document.hidden || detail?.job.state !== "running" || steps.contains(document.activeElement) || trace(), 1000);
  load();
  return view;
}
