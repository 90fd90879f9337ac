// The pipeline as a flow: phases, the jobs between them, and plots of the last minutes.

import { base, get } from "./api.js";
import { act } from "./actions.js";
import { button, el, reconcile, say, set } from "./dom.js";
import { bytes, count, failure, micros, plural, rate, span } from "./format.js";
import { Chart, spark } from "./chart.js";
import { Points, store } from "./store.js";

const STEPS = [
  ["second", 600, "10 minutes"],
  ["minute", 1440, "24 hours"],
];

function figure(name, title) {
  const value = el("b", {}, "–");
  return { value, node: el("div", { class: "figure", title }, value, el("span", {}, name)) };
}

function phaseCard(context, job_type) {
  const say_ = {};
  const row = (name, label, title) => {
    say_[name] = el("dd", {}, "–");
    return [el("dt", { title }, label), say_[name]];
  };
  const bar = el("div", { class: "meter", role: "meter", "aria-valuemin": "0", "aria-label": `slots of ${job_type} in use` }, el("i"));
  const badge = el("span", { class: "state paused", hidden: true }, "paused");
  const toggle = button("Pause", () => {
    const phase = context.pipeline().phases.find((each) => each.job_type === job_type);
    const action = phase?.paused ? "resume" : "pause";
    const text = action === "pause" ? `${job_type} gets no new jobs until it is resumed; those that run go on.` : `${job_type} gets jobs again.`;
    act(context.key, { action, phase: job_type }, { title: `${action === "pause" ? "Pause" : "Resume"} ${job_type}?`, verb: action === "pause" ? "Pause" : "Resume", text });
  }, { class: "quiet small change" });
  const line = el("canvas", { class: "spark", "aria-hidden": "true" });
  const backlog = el("a", { class: "backlog", href: context.href("jobs", [], { phase: job_type, state: "enqueued,scheduled" }) }, el("b", {}, "0"), el("span", {}, " waiting"));
  const node = el("section", { class: "phase", "aria-label": `phase ${job_type}`, data: { phase: job_type } },
    el("header", {}, el("h3", {}, job_type), badge),
    backlog,
    el("div", { class: "slots" }, bar, el("span", {})),
    el("dl", {}, row("oldest", "oldest waits", "how long the job at the head of the queue has waited"), row("drain", "empty in", "at the present rate"), row("took", "takes", "the usual duration of one execution"), row("done", "done", "executions since the manager began to count"), row("failed", "failed now", "dead letters of this phase")),
    line,
    el("footer", {}, el("a", { href: context.href("workers", [], { phase: job_type }) }, "workers"), el("a", { href: context.href("logs", [], { phase: job_type }) }, "logs"), toggle));
  return {
    node,
    update(phase, track) {
      badge.hidden = !phase.paused;
      say(toggle, phase.paused ? "Resume" : "Pause");
      node.classList.toggle("starving", phase.enqueued > 0 && phase.workers === 0);
      say(backlog.firstChild, count(phase.enqueued + phase.scheduled));
      const part = phase.slots ? Math.min(1, phase.running / phase.slots) : 0;
      bar.firstChild.style.width = `${part * 100}%`;
      set(bar, { "aria-valuemax": phase.slots, "aria-valuenow": Math.min(phase.running, phase.slots) });
      say(bar.nextSibling, phase.workers ? `${used(phase)} · ${plural(phase.workers, "worker")}` : "no worker");
      say(say_.oldest, phase.oldest_wait_ms === null || !phase.enqueued ? "–" : span(phase.oldest_wait_ms));
      const waiting = phase.enqueued + phase.scheduled;
      say(say_.drain, !waiting ? "–" : phase.drain_s === null ? "not at this rate" : span(phase.drain_s * 1000));
      say(say_.took, micros(phase.duration_us));
      say(say_.done, count(phase.done));
      say(say_.failed, count(phase.failed));
      say_.failed.classList.toggle("bad", phase.failed > 0);
      say_.failed.title = phase.failures.map(([kind, n]) => `${failure(kind)}: ${n}`).join(", ");
      if (track) spark(line, track.done.slice(-120));
    },
  };
}

/** Slots in use; what a worker has been sent beyond them waits at the worker. */
function used({ running, slots }) {
  const ahead = running > slots ? `, ${count(running - slots)} sent ahead` : "";
  return `${count(Math.min(running, slots))} of ${plural(slots, "slot")}${ahead}`;
}

function edge(label) {
  const value = el("b", {}, "–");
  const node = el("div", { class: "edge", "aria-label": label }, value, el("i", { "aria-hidden": "true" }));
  return { node, update(perSecond) {
    say(value, rate(perSecond));
    node.classList.toggle("flowing", perSecond > 0);
  } };
}

export function overview(context) {
  const figures = {
    live: figure("in the pipeline", "jobs that have not ended"),
    done: figure("finished", "jobs that went through all phases since the journal began"),
    rate: figure("finish now", "each second, over the last five"),
    failed: figure("failed", "dead letters: kept until they are retried or discarded"),
    workers: figure("workers", "that take jobs"),
    repeated: figure("ran twice", "executions that were repeated because a failure hid their result"),
  };
  const state = el("span", { class: "state" });
  const pause = button("Pause the pipeline", () => {
    const action = context.pipeline().state === "paused" ? "resume" : "pause";
    act(context.key, { action }, { title: action === "pause" ? "Pause the whole pipeline?" : "Resume the pipeline?", verb: action === "pause" ? "Pause" : "Resume", text: action === "resume" ? "Jobs are dispatched again." : null });
  }, { class: "quiet change" });
  const heading = el("h1", {});
  const flow = el("div", { class: "flow", role: "group", "aria-label": "phases in order" });
  const format = { rate: (value) => rate(value), count, time: micros };
  const charts = [
    new Chart("Throughput", [{ name: "arrived", colour: "--blue", format: format.rate }, { name: "finished", colour: "--green", format: format.rate, fill: true }, { name: "failed", colour: "--red", format: format.rate }]),
    new Chart("From enqueue to end", [{ name: "p99", colour: "--amber", format: format.time, fill: true }, { name: "p50", colour: "--blue", format: format.time }]),
    new Chart("Backlog", [{ name: "waiting", colour: "--violet", format: format.count, fill: true }, { name: "running", colour: "--green", format: format.count }]),
  ];
  let step = context.parameters.get("span") === "day" ? "minute" : "second";
  let shown = null;
  const steps = el("div", { class: "segments", role: "group", "aria-label": "time shown" }, ...STEPS.map(([name, , label]) =>
    button(label, () => choose(name), { "aria-pressed": String(name === step), data: { step: name } })));
  const facts = el("dl", { class: "facts" });
  const node = el("div", { class: "page" },
    el("div", { class: "row title" }, heading, state, el("span", { class: "spring" }), pause),
    el("div", { class: "figures" }, ...Object.values(figures).map((each) => each.node)),
    flow,
    el("div", { class: "row" }, el("h2", {}, "The last"), steps),
    el("div", { class: "charts" }, ...charts.map((chart) => chart.node)),
    el("details", {}, el("summary", {}, "Manager and journal"), facts));

  async function load() {
    const wanted = step;
    const [, points] = STEPS.find(([name]) => name === wanted);
    try {
      const series = await get(`${base(context.key)}/series`, { step: wanted, points });
      if (wanted !== step) return;
      const kept = new Points(series);
      if (wanted === "second") store.points.set(context.key, kept);
      shown = kept;
      view.draw();
    } catch {
      // The banner says what is wrong; the plots come with the next opening.
    }
  }

  function choose(name) {
    step = name;
    for (const each of steps.children) set(each, { "aria-pressed": String(each.dataset.step === name) });
    context.replace({ span: name === "minute" ? "day" : "" });
    load();
  }

  const cards = new Map();
  const edges = [];
  let drawn = "";

  function build(phases) {
    drawn = phases.join("\n");
    cards.clear();
    edges.length = 0;
    const children = [];
    for (const job_type of phases) {
      edges.push(edge(`jobs that come to ${job_type}`));
      cards.set(job_type, phaseCard(context, job_type));
      children.push(edges.at(-1).node, cards.get(job_type).node);
    }
    edges.push(edge("jobs that finish"));
    children.push(edges.at(-1).node, el("div", { class: "sink" }, "done"));
    flow.replaceChildren(el("div", { class: "sink" }, "enqueued"), ...children);
  }

  let closedMinute = 0;
  const view = {
    node,
    stream: () => ({ topics: ["points"], pipeline: context.key }),
    heard(event, data) {
      if (event === "hello") load();
      if (event !== "points" || data.pipeline !== context.key || step !== "minute") return;
      const minute = Math.floor(data.points.at(-1).at / 60e6);
      if (minute !== closedMinute && closedMinute) load();
      closedMinute = minute;
    },
    draw() {
      const pipeline = context.pipeline();
      const phases = pipeline.phases.map((phase) => phase.job_type);
      if (drawn !== phases.join("\n")) build(phases);
      say(heading, pipeline.key);
      say(state, pipeline.state ?? "");
      state.dataset.state = pipeline.state ?? "";
      say(pause, pipeline.state === "paused" ? "Resume the pipeline" : "Pause the pipeline");
      say(figures.live.value, count(pipeline.live));
      say(figures.done.value, count(pipeline.success));
      say(figures.rate.value, rate(pipeline.rates?.done));
      say(figures.failed.value, count(pipeline.failed));
      figures.failed.node.classList.toggle("bad", pipeline.failed > 0);
      const { available = 0, lost = 0 } = pipeline.workers ?? {};
      say(figures.workers.value, lost ? `${available} (${lost} lost)` : available);
      figures.workers.node.classList.toggle("bad", lost > 0);
      say(figures.repeated.value, count(pipeline.duplicates));
      figures.repeated.node.title = (pipeline.duplicate_causes ?? []).map(([cause, n]) => `${cause}: ${n}`).join(", ") || "executions that were repeated because a failure hid their result";
      const live = store.points.get(context.key);
      pipeline.phases.forEach((phase, index) => {
        cards.get(phase.job_type)?.update(phase, live?.phases.get(phase.job_type));
        edges[index]?.update(phase.rates?.arrived ?? 0);
      });
      edges.at(-1)?.update(pipeline.rates?.done ?? 0);
      const points = step === "second" ? live : shown;
      if (points) {
        const per = points.step / 1e6;
        const each = (column) => (per === 1 ? column : column.map((value) => value / per));
        const at = (index) => points.at(index);
        const { total } = points;
        charts[0].show([each(total.arrived), each(total.done), each(total.failed)], at);
        charts[1].show([total.p99_us, total.p50_us], at);
        charts[2].show([total.backlog, total.running], at);
      }
      const { manager, journal } = pipeline;
      const lines = manager ? [
        ["manager", `${manager.manager}, started ${manager.epoch} times on this journal`],
        ["version", manager.version],
        ["journal", `${manager.storage}: ${bytes(journal.page_bytes)} in ${plural(journal.pages, "page")}, ${bytes(journal.disk_bytes)} on disk, ${plural(journal.commits, "commit")}`],
        ["listens at", [...manager.pull, ...manager.sub, ...manager.pub].join(", ")],
        ...pipeline.counters.filter(([name]) => !/messages|bytes|connections_(open|accepted)|events_published/.test(name)).map(([name, value]) => [name, count(value)]),
      ] : [];
      reconcile(facts, lines, ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd", {})), (each, [, value]) => say(each.lastChild, value));
    },
    close() {
      charts.forEach((chart) => chart.close());
      store.points.delete(context.key);
    },
  };
  load();
  return view;
}
