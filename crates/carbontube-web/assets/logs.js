// Log lines as they are written: of all, or of a job, a worker or a phase.

import { get, query } from "./api.js";
import { listenAgain } from "./app.js";
import { button, el, nothing, reconcile, say, set } from "./dom.js";
import { count, plural } from "./format.js";
import { lineNode } from "./lines.js";

/** Lines kept on the page. */
const LINES_MAX = 1000;
const LEVELS = ["error", "warn", "info", "debug"];
const TYPING_MS = 300;

export function logs(context) {
  const initial = context.parameters;
  const phase = el("select", { "aria-label": "Phase", on: { change: restart } });
  const level = el("select", { "aria-label": "Level", on: { change: restart } }, el("option", { value: "" }, "every level"), ...LEVELS.map((name) => el("option", { value: name }, name === "error" ? "errors" : `${name} and louder`)));
  level.value = initial.get("level") ?? "";
  const text = el("input", { type: "search", placeholder: "text has", "aria-label": "Search lines", data: { search: "" }, ".value": initial.get("text") ?? "", on: { input: typed } });
  const job = el("input", { type: "search", placeholder: "job id", "aria-label": "Job", ".value": initial.get("job") ?? "", on: { input: typed } });
  const worker = el("input", { type: "search", placeholder: "worker id", "aria-label": "Worker", ".value": initial.get("worker") ?? "", on: { input: typed } });
  const lines = el("ol", { class: "lines tall", tabindex: "0", "aria-label": "log lines" });
  const status = el("span", { class: "faint", role: "status" });
  const download = el("a", { download: "" }, "download");
  const pause = button("Pause", () => { paused = !paused; if (!paused) { shown = known.slice(); missed = 0; } view.draw(); }, { "aria-pressed": "false" });
  const clear = button("Clear", () => { known = []; shown = []; left = 0; view.draw(); }, { class: "quiet" });
  const empty = el("div", {});
  let known = [];
  let shown = [];
  let paused = false;
  let missed = 0;
  let left = 0;
  let first = true;
  let timer = null;
  let follow = true;
  let drawnPhases = null;
  lines.addEventListener("scroll", () => { follow = lines.scrollTop + lines.clientHeight > lines.scrollHeight - 40; });

  const parameters = () => ({ pipeline: context.key, phase: phase.value, level: level.value, text: text.value.trim(), job: job.value.trim(), worker: worker.value.trim() });

  function typed() {
    clearTimeout(timer);
    timer = setTimeout(restart, TYPING_MS);
  }

  function restart() {
    clearTimeout(timer);
    const { pipeline: _, ...kept } = parameters();
    context.replace(kept);
    known = [];
    shown = [];
    left = 0;
    load();
    listenAgain();
  }

  async function load() {
    const wanted = JSON.stringify(parameters());
    try {
      const answer = await get("/api/v1/logs", { ...parameters(), limit: 500 });
      if (wanted !== JSON.stringify(parameters())) return;
      add(answer.lines);
    } catch {
      // The banner says what is wrong; the stream brings what comes.
    }
    view.draw();
  }

  function add(fresh) {
    if (!fresh.length) return;
    const last = known.at(-1)?.seq ?? -1;
    const inOrder = fresh.every((line, index) => line.seq > (index ? fresh[index - 1].seq : last));
    if (inOrder) known = [...known, ...fresh];
    else known = [...new Map([...known, ...fresh].map((line) => [line.seq, line])).values()].sort((a, b) => a.seq - b.seq);
    known = known.slice(-LINES_MAX);
    if (paused) missed += fresh.length;
    else shown = known;
  }

  const view = {
    node: el("div", { class: "page wide" },
      el("div", { class: "row title" }, el("h1", {}, "Logs"), el("span", { class: "spring" }), download, clear, pause),
      el("div", { class: "row filters" }, text, phase, level, job, worker),
      el("div", { class: "row" }, status), lines, empty),
    stream: () => ({ topics: ["logs"], ...parameters() }),
    heard(event, data) {
      if (event === "hello") first = true;
      if (event !== "logs") return;
      // What was left out before the first lines was there before this page.
      if (!first) left += data.left_out;
      first = false;
      add(data.lines);
    },
    draw() {
      const names = context.pipeline().phases.map((each) => each.job_type);
      if (drawnPhases !== names.join("\n")) {
        const before = drawnPhases === null ? (initial.get("phase") ?? "") : phase.value;
        drawnPhases = names.join("\n");
        phase.replaceChildren(el("option", { value: "" }, "every phase"), ...names.map((name) => el("option", { value: name }, name)));
        phase.value = before;
      }
      set(pause, { "aria-pressed": String(paused) });
      say(pause, paused ? "Go on" : "Pause");
      const hidden = left ? `, ${count(left)} left out because there were too many at once` : "";
      say(status, `${plural(shown.length, "line")}${hidden}${paused ? ` · paused, ${count(missed)} more have come` : follow ? " · following" : " · scroll to the end to follow"}`);
      download.href = `/api/v1/logs${query({ ...parameters(), limit: 5000, download: 1 })}`;
      reconcile(lines, shown, (line) => line.seq, (line) => lineNode(context, line, { origin: true }));
      if (follow && !paused) lines.scrollTop = lines.scrollHeight;
      lines.hidden = shown.length === 0;
      empty.replaceChildren(...(shown.length ? [] : [nothing("No line fits yet.", "Lines are kept from when carbontube web was started.")]));
    },
    close: () => clearTimeout(timer),
  };
  // The stream filters by phase: know the phases before it opens.
  const names = context.pipeline().phases.map((each) => each.job_type);
  phase.replaceChildren(el("option", { value: "" }, "every phase"), ...names.map((name) => el("option", { value: name }, name)));
  phase.value = initial.get("phase") ?? "";
  drawnPhases = names.join("\n");
  load();
  return view;
}
