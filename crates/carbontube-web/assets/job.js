// One job: where it is and why, what was tried, what it said.

import { base, get } from "./api.js";
import { act } from "./actions.js";
import { button, el, nothing, reconcile, say } from "./dom.js";
import { brief, bytes, failure, micros, plural, time } from "./format.js";
import { lineNode } from "./lines.js";

/** Lines kept on the page. */
const LINES_MAX = 500;
const ENDED = new Set(["success", "failed", "cancelled"]);

function phaseStep(context, name, index, detail) {
  const { job, attempts } = detail;
  const mine = attempts.filter((attempt) => attempt.phase === index);
  const past = job.phase > index || job.state === "success";
  const here = job.phase === index && job.state !== "success";
  const status = past ? "success" : here ? job.state : "later";
  const longest = Math.max(1, ...attempts.map((attempt) => attempt.duration_us ?? 0));
  const tries = mine.map((attempt) => {
    const bar = el("i");
    bar.style.width = `${Math.max(2, ((attempt.duration_us ?? 0) / longest) * 100)}%`;
    return el("li", { class: "try", data: { state: attempt.failure ? "failed" : "success" } },
      el("span", { class: "what" }, attempt.failure ? failure(attempt.failure) : "success"),
      el("span", { class: "length", "aria-hidden": "true" }, bar),
      el("span", {}, micros(attempt.duration_us)),
      el("a", { class: "faint mono", href: context.href("logs", [], { worker: attempt.worker, job: job.id }), title: attempt.worker }, brief(attempt.worker)),
      el("span", { class: "faint" }, time(attempt.started_at)),
      attempt.error ? el("p", { class: "bad" }, attempt.error) : null);
  });
  return el("li", { class: "step", data: { state: status } },
    el("h3", {}, name, el("span", { class: "state", data: { state: status } }, status === "later" ? "not yet" : status)),
    tries.length ? el("ol", { class: "tries" }, ...tries) : el("p", { class: "faint" }, past ? "Done; how long it took is no longer kept." : here ? "No attempt has ended." : "Waits for the phases before it."));
}

export function job(context) {
  const id = context.rest[0] ?? "";
  const state = el("span", { class: "state" });
  const why = el("p", { class: "why lead" });
  const body = el("div", {});
  const progress = el("div", { class: "progress", hidden: true }, el("progress", { max: "1", "aria-label": "progress" }), el("span", {}));
  const lines = el("ol", { class: "lines", "aria-label": "log lines", tabindex: "0" });
  const known = [];
  let detail = null;
  let trouble = null;
  let loading = false;
  let again = false;
  let left = 0;
  const actions = el("span", { class: "row change" },
    button("Retry", () => change("retry", "Retry", "It runs again from the phase that failed.")),
    button("Cancel", () => change("cancel", "Cancel it", "It is stopped and ends as cancelled.", "danger")),
    button("Discard", () => change("discard", "Discard", "The failed job is forgotten; this cannot be undone.", "danger")));

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
      for (const line of detail.logs?.lines ?? []) add(line);
      if (detail.progress) moved(detail.progress);
      build();
    } catch (error) {
      trouble = error;
    }
    loading = false;
    view.draw();
    if (again) {
      again = false;
      setTimeout(load, 300);
    }
  }

  function add(line) {
    if (known.some((other) => other.seq === line.seq)) return;
    known.push(line);
    known.sort((a, b) => a.seq - b.seq);
    known.splice(0, known.length - LINES_MAX);
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
    const shown = instructions.json !== undefined ? JSON.stringify(instructions.json, null, 2) : (instructions.text ?? "");
    body.replaceChildren(
      el("dl", { class: "facts" },
        fact("enqueued", time(it.enqueued_at)), fact("changed", time(it.changed_at)), fact("attempt", String(it.attempt)),
        ...(detail.not_before ? [fact("not before", time(detail.not_before))] : []),
        ...(it.worker ? [fact("worker", el("a", { href: context.href("logs", [], { worker: it.worker }), title: it.worker }, brief(it.worker)))] : []),
        ...(detail.traceparent ? [fact("traceparent", el("code", {}, detail.traceparent))] : [])),
      error ? el("section", { class: "card error" }, el("h2", {}, "Error", el("span", { class: "faint" }, ` · ${failure(detail.failure)}`)), el("p", { class: "bad" }, error.message), error.detail ? el("pre", {}, error.detail) : "") : "",
      el("h2", {}, "Through the phases"),
      el("ol", { class: "steps" }, ...phases.map((name, index) => phaseStep(context, name, index, detail))),
      el("div", { class: "row" }, el("h2", {}, it.state === "success" ? "Result" : "Instructions now"), el("span", { class: "faint" }, bytes(instructions.bytes)), instructions.bytes ? el("a", { href: instructions.href, download: "" }, "download") : ""),
      shown ? el("pre", { class: "data", tabindex: "0" }, shown) : el("p", { class: "faint" }, "Not kept."),
      instructions.truncated ? el("p", { class: "faint" }, "Only the beginning is shown.") : "");
  }

  const missing = el("div", {});
  const view = {
    node: el("div", { class: "page" },
      el("p", { class: "crumb" }, el("a", { href: context.href("jobs") }, "Jobs")),
      el("div", { class: "row title" }, el("h1", { class: "mono" }, id), state, el("span", { class: "spring" }), actions),
      why, progress, missing, body,
      el("div", { class: "row" }, el("h2", {}, "Log"), el("span", { class: "faint", role: "status" }), el("a", { href: `/api/v1/logs?${new URLSearchParams({ pipeline: context.key, job: id, download: 1, limit: 5000 })}`, download: "" }, "download")),
      lines),
    stream: () => ({ topics: ["jobs", "progress", "logs"], pipeline: context.key, job: id }),
    heard(event, data) {
      if (event === "jobs" && data.jobs.some((each) => each.id === id)) load();
      if (event === "progress") for (const item of data.items) if (item.job === id) moved(item);
      if (event === "logs") {
        left += data.left_out;
        for (const line of data.lines) if (line.job === id) add(line);
      }
    },
    draw() {
      const it = detail?.job;
      say(state, it?.state ?? "");
      state.dataset.state = it?.state ?? "";
      say(why, !it ? "" : it.reason || { success: "It went through all phases.", running: `It runs ${it.job_type}.`, failed: "It failed for good, and is kept until it is retried or discarded.", cancelled: "It was cancelled." }[it.state] || "");
      const [retry, cancel, discard] = actions.children;
      retry.hidden = discard.hidden = it?.state !== "failed";
      cancel.hidden = !it || ENDED.has(it.state);
      if (it && ENDED.has(it.state)) progress.hidden = true;
      missing.replaceChildren(...(trouble ? [trouble.code === "unknown_job" ? nothing("No such job is known.", "It may have been discarded, or the history no longer has it.") : nothing("It could not be loaded.", trouble.message)] : []));
      say(lines.previousSibling.children[1], known.length ? plural(known.length, "line") + (left ? `, ${left} left out` : "") : "no line yet");
      reconcile(lines, known, (line) => line.seq, (line) => lineNode(context, line));
    },
  };
  load();
  return view;
}
