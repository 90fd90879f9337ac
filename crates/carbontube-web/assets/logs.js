// Log lines as they are written: of all, or of a job, a worker or a phase.

import { get, query } from "./api.js";
import { listenAgain } from "./app.js";
import { button, choices, el, emptiness, reconcile, say, set } from "./dom.js";
import { count, plural } from "./format.js";
import { lineNode } from "./lines.js";

/** Lines kept on the page. */
const LINES_MAX = 1000;
const LEVELS = ["error", "warn", "info", "debug"];
const TYPING_MS = 300;
/** So near to the end counts as the end, in pixels. */
const END_PX = 40;

export function logs(context) {
  const initial = context.parameters;
  const phase = el("select", { "aria-label": "Phase", on: { change: restart } });
  const level = el("select", { "aria-label": "Level", on: { change: restart } }, el("option", { value: "" }, "every level"), ...LEVELS.map((name) => el("option", { value: name }, name === "error" ? "errors" : `${name} and louder`)));
  level.value = initial.get("level") ?? "";
  const input = (name, label) => el("input", { type: "search", placeholder: label, "aria-label": label, ".value": initial.get(name) ?? "", on: { input: typed } });
  const text = input("text", "text has");
  text.dataset.search = "";
  const job = input("job", "job id");
  const worker = input("worker", "worker id");
  const lines = el("ol", { class: "lines tall", tabindex: "0", "aria-label": "log lines", on: { scroll: scrolled } });
  const status = el("span", { class: "faint" });
  const download = el("a", { download: "" }, "download");
  const pause = button("Pause", () => hold(held ? "" : "paused"), { class: "quiet", "aria-pressed": "false" });
  const clear = button("Clear", () => { known = []; seen.clear(); shown = []; left = 0; missed = 0; view.draw(); }, { class: "quiet", title: "empties this page, not the log" });
  const empty = emptiness();
  let known = [];
  const seen = new Set();
  let shown = [];
  /** Why what is shown stays: `paused` or `scrolled`; empty while it follows. */
  let held = "";
  let missed = 0;
  let left = 0;
  let first = true;
  let timer = null;
  let top = 0;
  let trouble = "";
  let closed = false;

  function hold(why) {
    held = why;
    if (!held) {
      shown = known;
      missed = 0;
    }
    view.draw();
  }

  /** Who scrolls up reads: what is read must not run away. At the end it follows again. */
  function scrolled() {
    const isEnd = lines.scrollTop + lines.clientHeight > lines.scrollHeight - END_PX;
    const isUp = lines.scrollTop < top - 1;
    top = lines.scrollTop;
    if (isEnd && held === "scrolled") hold("");
    else if (isUp && !isEnd && !held) hold("scrolled");
  }

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
    seen.clear();
    left = 0;
    hold("");
    load();
    listenAgain();
  }

  async function load() {
    const wanted = JSON.stringify(parameters());
    try {
      const answer = await get("/api/v1/logs", { ...parameters(), limit: 500 });
      if (closed || wanted !== JSON.stringify(parameters())) return;
      trouble = "";
      add(answer.lines);
    } catch (error) {
      trouble = error.message;
    }
    if (!closed) view.draw();
  }

  function add(lines) {
    const fresh = lines.filter((line) => !seen.has(line.seq));
    if (!fresh.length) return;
    // Lines of several workers come in bunches: each bunch in the order of its times.
    const byTime = (a, b) => a.at - b.at || a.seq - b.seq;
    fresh.sort(byTime);
    const latest = known.reduce((most, line) => Math.max(most, line.seq), -1);
    const isLate = fresh.some((line) => line.seq < latest);
    known = [...known, ...fresh];
    if (isLate) known.sort(byTime);
    for (const line of fresh) seen.add(line.seq);
    if (known.length > LINES_MAX) {
      for (const line of known.slice(0, known.length - LINES_MAX)) seen.delete(line.seq);
      known = known.slice(-LINES_MAX);
    }
    if (held) missed += fresh.length;
    else shown = known;
  }

  const view = {
    node: el("div", { class: "page wide" },
      el("div", { class: "row title" }, el("h1", {}, "Logs"), el("span", { class: "spring" }), download, clear, pause),
      el("div", { class: "row filters" }, text, phase, level, job, worker),
      el("div", { class: "row" }, status), lines, empty.node),
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
      choices(phase, "every phase", context.pipeline().phases.map((each) => each.job_type));
      set(pause, { "aria-pressed": String(held !== "") });
      say(pause, held ? "Follow" : "Pause");
      const hidden = left ? `, ${count(left)} left out because there were too many at once` : "";
      const how = held ? `${held === "paused" ? "paused" : "held while you read above"}, ${plural(missed, "line")} came since` : "following";
      say(status, shown.length ? `${plural(shown.length, "line")}${hidden} · ${how}` : "");
      const href = `/api/v1/logs${query({ ...parameters(), limit: 5000, download: 1 })}`;
      set(download, { href });
      lines.hidden = shown.length === 0;
      reconcile(lines, shown, (line) => line.seq, (line) => lineNode(context, line, { origin: true }));
      if (!held) lines.scrollTop = lines.scrollHeight;
      if (shown.length) empty.say("");
      else if (trouble) empty.say("The lines could not be loaded.", trouble);
      else if (Object.entries(parameters()).some(([name, value]) => name !== "pipeline" && value)) empty.say("No line fits yet.", "The latest lines are kept, not all there ever were.");
      else empty.say("Nothing was written yet.", "What phases log, or a command writes to stderr, stands here as it comes.");
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
  // The stream filters by phase: know the phases before it opens.
  choices(phase, "every phase", context.pipeline().phases.map((each) => each.job_type), initial.get("phase") ?? "");
  load();
  return view;
}
