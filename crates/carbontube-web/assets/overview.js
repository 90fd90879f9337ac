// The pipeline as a flow: phases, the jobs between them, and plots of the last minutes.

import { base, get } from "./api.js";
import { act } from "./actions.js";
import { button, el, reconcile, say, set } from "./dom.js";
import { bytes, count, failure, micros, plural, rate, span } from "./format.js";
import { Chart, spark } from "./chart.js";
import { Points, store } from "./store.js";

/** What the plots can show: a name, the step of the numbers, how many of them, in words. */
const SPANS = [
  ["minutes", "second", 600, "10 minutes"],
  ["hour", "minute", 60, "1 hour"],
  ["day", "minute", 1440, "24 hours"],
];

function figure(name, title, href) {
  const value = el("b", {}, "–");
  return { value, node: el(href ? "a" : "div", { class: "figure", title, href }, value, el("span", {}, name)) };
}

/** Why the jobs of a phase wait, in a few words; and whether somebody should look. */
function holdUp(phase, pipeline) {
  if (pipeline.state === "paused") return ["the pipeline is paused", "warn"];
  if (phase.paused) return ["", "warn"];
  if (!phase.enqueued) return ["", ""];
  if (!phase.workers) return ["no worker takes its jobs", "bad"];
  if (phase.running < phase.slots) return ["", ""];
  return phase.drain_s === null ? ["all slots busy, and more comes", "warn"] : ["all slots busy", ""];
}

function phaseCard(context, job_type) {
  const at = {};
  const row = (name, label, title) => [el("dt", { title }, label), (at[name] = el("dd", {}, "–"))];
  const bar = el("div", { class: "meter", role: "meter", "aria-valuemin": "0", "aria-label": `slots of ${job_type} in use` }, el("i"));
  const [slots, crew] = [el("span", {}), el("span", {})];
  const badge = el("span", { class: "state paused", hidden: true }, "paused");
  const hold = el("p", { class: "hold" });
  const toggle = button("Pause", () => {
    const phase = context.pipeline().phases.find((each) => each.job_type === job_type);
    const action = phase?.paused ? "resume" : "pause";
    const text = action === "pause" ? `${job_type} gets no new jobs until it is resumed; those that run go on.` : `${job_type} gets jobs again.`;
    act(context.key, { action, phase: job_type }, { title: `${action === "pause" ? "Pause" : "Resume"} ${job_type}?`, verb: action === "pause" ? "Pause" : "Resume", text });
  }, { class: "quiet small change" });
  const line = el("canvas", { class: "spark", "aria-hidden": "true" });
  const backlog = el("a", { class: "backlog", href: context.href("jobs", [], { phase: job_type, state: "enqueued,scheduled" }) }, el("b", {}, "0"), el("span", {}, " waiting"), el("small", { class: "faint", title: "wait for a time: a delay, or the pause before another try" }));
  const dead = el("a", { href: context.href("jobs", [], { phase: job_type, state: "failed" }) }, "0");
  const node = el("section", { class: "phase", "aria-label": `phase ${job_type}`, data: { phase: job_type } },
    el("header", {}, el("h2", {}, job_type), badge),
    backlog, hold,
    el("div", { class: "slots" }, bar, slots, crew),
    el("dl", {},
      row("oldest", "oldest waits", "how long the job at the head of the queue has waited"),
      row("drain", "empty in", "at the present rates"),
      row("took", "takes", "the usual duration of one execution"),
      row("ahead", "sent ahead", "jobs at the workers before a slot is free, so that none idles"),
      row("done", "done", "executions that succeeded, since the manager was started"),
      row("tries", "failed tries", "executions that failed, since the manager was started"),
      row("failed", "failed jobs", "out of tries; kept until they are retried or discarded")),
    line,
    el("footer", {}, el("a", { href: context.href("workers", [], { phase: job_type }), "aria-label": `workers of ${job_type}` }, "workers"), el("a", { href: context.href("logs", [], { phase: job_type }), "aria-label": `logs of ${job_type}` }, "logs"), toggle));
  at.failed.replaceChildren(dead);
  return {
    node,
    update(phase, pipeline, track) {
      badge.hidden = !phase.paused;
      say(toggle, phase.paused ? "Resume" : "Pause");
      set(toggle, { "aria-label": `${phase.paused ? "Resume" : "Pause"} ${job_type}` });
      say(backlog.children[0], count(phase.enqueued));
      say(backlog.children[2], phase.scheduled ? ` + ${count(phase.scheduled)} later` : "");
      const [why, how] = holdUp(phase, pipeline);
      say(hold, why);
      hold.dataset.how = how;
      node.dataset.how = how;
      const used = Math.min(phase.running, phase.slots);
      bar.firstChild.style.width = `${phase.slots ? (used / phase.slots) * 100 : 0}%`;
      set(bar, { "aria-valuemax": phase.slots, "aria-valuenow": used });
      say(slots, phase.workers ? `${count(used)} of ${plural(phase.slots, "slot")}` : "no slot");
      say(crew, phase.workers ? plural(phase.workers, "worker") : "no worker");
      say(at.ahead, count(Math.max(0, phase.running - phase.slots)));
      say(at.oldest, phase.oldest_wait_ms === null || !phase.enqueued ? "–" : span(phase.oldest_wait_ms));
      say(at.drain, !phase.enqueued ? "–" : phase.drain_s === null ? "not at this rate" : span(phase.drain_s * 1000));
      say(at.took, phase.done ? micros(phase.duration_us) : "–");
      say(at.done, count(phase.done));
      const tries = phase.failures.reduce((sum, [, n]) => sum + n, 0);
      say(at.tries, phase.rates?.failed > 0 ? `${count(tries)} · ${rate(phase.rates.failed)}` : count(tries));
      say(dead, count(phase.failed));
      dead.classList.toggle("bad", phase.failed > 0);
      if (track) spark(line, track.done.slice(-120));
    },
  };
}

function edge(label) {
  const value = el("b", {}, "–");
  const node = el("div", { class: "edge" }, el("span", { class: "unseen" }, `${label}: `), value, el("i", { "aria-hidden": "true" }));
  return { node, update(perSecond) {
    say(value, rate(perSecond));
    node.classList.toggle("flowing", perSecond > 0);
  } };
}

/** A card that says how often something happened, by its cause. */
function causes(title, about) {
  const list = el("ul", { class: "causes" });
  const none = el("p", { class: "faint" });
  return {
    node: el("section", { class: "card" }, el("h3", {}, title), el("p", { class: "faint" }, about), list, none),
    /** `lines`: `[name, count, more]`, and what there is to say when there is none. */
    show(lines, nothing) {
      const most = Math.max(1, ...lines.map(([, n]) => n));
      reconcile(list, lines, ([name]) => name, ([name]) => el("li", {}, el("span", {}, name), el("i", { "aria-hidden": "true" }, el("b", {})), el("b", {})), (node, [, n, more]) => {
        node.children[1].firstChild.style.width = `${(n / most) * 100}%`;
        say(node.lastChild, more ? `${count(n)} (${more})` : count(n));
      });
      none.hidden = lines.length > 0;
      say(none, nothing);
    },
  };
}

export function overview(context) {
  const figures = {
    live: figure("in the pipeline", "jobs that have not ended", context.href("jobs", [], { state: "enqueued,scheduled,running" })),
    done: figure("finished", "jobs that went through all phases since the journal began", context.href("jobs", [], { state: "success" })),
    rate: figure("finish now", "each second, over the last five"),
    failed: figure("failed", "out of tries: kept until they are retried or discarded", context.href("failures")),
    workers: figure("workers take jobs", "the lost ones are not counted among them", context.href("workers")),
    repeated: figure("may have run twice", "executions that a failure made uncertain, and that were given out again; the causes are below"),
  };
  const state = el("span", { class: "state" });
  const pause = button("Pause the pipeline", () => {
    const action = context.pipeline().state === "paused" ? "resume" : "pause";
    act(context.key, { action }, { title: action === "pause" ? "Pause the whole pipeline?" : "Resume the pipeline?", verb: action === "pause" ? "Pause" : "Resume", text: action === "resume" ? "Jobs are dispatched again." : "No phase gets new jobs until it is resumed; those that run go on, and jobs are still accepted." });
  }, { class: "quiet change" });
  const heading = el("h1", {});
  const flow = el("div", { class: "flow", role: "group", "aria-label": "phases in order", tabindex: "0" });
  const first = el("p", { class: "first faint", hidden: true });
  const format = { rate: (value) => rate(value), count, time: micros };
  const charts = [
    new Chart("Throughput", [{ name: "arrived", colour: "--blue", format: format.rate, mean: true }, { name: "finished", colour: "--green", format: format.rate, fill: true, mean: true }, { name: "failed", colour: "--red", format: format.rate, mean: true }]),
    new Chart("From enqueue to end", [{ name: "p99", colour: "--amber", format: format.time, fill: true, gaps: true }, { name: "p50", colour: "--blue", format: format.time, gaps: true }]),
    new Chart("Backlog", [{ name: "waiting", colour: "--violet", format: format.count, fill: true }, { name: "running", colour: "--green", format: format.count }]),
  ];
  for (const chart of charts) chart.pointed = (index) => charts.forEach((other) => other !== chart && other.look(index));
  let chosen = SPANS.find(([name]) => name === context.parameters.get("span")) ?? SPANS[0];
  let shown = null;
  let closed = false;
  let greeted = false;
  const segments = el("div", { class: "segments", role: "group", "aria-label": "time shown" }, ...SPANS.map((each) =>
    button(each[3], () => choose(each), { "aria-pressed": String(each === chosen), data: { span: each[0] } })));
  const repeats = causes("Repeated executions", "What began and was given out again, because nobody could know how it ended.");
  const tries = causes("Failed tries", "Executions that failed, of all phases, by how they did.");
  const facts = el("dl", { class: "facts" });
  const node = el("div", { class: "page" },
    el("div", { class: "row title" }, heading, state, el("span", { class: "spring" }), pause),
    el("div", { class: "figures" }, ...Object.values(figures).map((each) => each.node)),
    first, flow,
    el("div", { class: "row" }, el("h2", {}, "Over time"), segments),
    el("div", { class: "charts" }, ...charts.map((chart) => chart.node)),
    el("div", { class: "halves" }, repeats.node, tries.node),
    el("details", {}, el("summary", {}, "Manager and journal"), facts));

  async function load() {
    const wanted = chosen;
    const series = async ([, step, points]) => new Points(await get(`${base(context.key)}/series`, { step, points }));
    try {
      // The small lines of the phases show seconds, whatever the plots show.
      if (wanted === SPANS[0] || !store.points.has(context.key)) store.points.set(context.key, await series(SPANS[0]));
      if (wanted !== SPANS[0]) {
        const longer = await series(wanted);
        if (wanted !== chosen) return;
        shown = longer;
      }
      if (closed) store.points.delete(context.key);
      else view.draw();
    } catch {
      // The banner says what is wrong; the plots come with the next opening.
    }
  }

  function choose(wanted) {
    chosen = wanted;
    for (const each of segments.children) set(each, { "aria-pressed": String(each.dataset.span === wanted[0]) });
    context.replace({ span: wanted === SPANS[0] ? "" : wanted[0] });
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
      edges.push(edge(`come to ${job_type}`));
      cards.set(job_type, phaseCard(context, job_type));
      children.push(edges.at(-1).node, cards.get(job_type).node);
    }
    edges.push(edge("finish"));
    children.push(edges.at(-1).node, el("div", { class: "sink" }, "done"));
    flow.replaceChildren(el("div", { class: "sink" }, "enqueued"), ...children);
  }

  function plot(points) {
    const per = points.step / 1e6;
    const each = (column) => (per === 1 ? column : column.map((value) => value / per));
    const at = (index) => points.at(index);
    const { total } = points;
    charts[0].show([each(total.arrived), each(total.done), each(total.failed)], at);
    charts[1].show([total.p99_us, total.p50_us], at);
    charts[2].show([total.backlog, total.running], at);
  }

  function explain(pipeline) {
    const certain = new Map(pipeline.duplicate_causes ?? []);
    const lines = (pipeline.rerun_causes ?? pipeline.duplicate_causes ?? []).map(([cause, n]) => [cause, n, certain.get(cause) ? `${count(certain.get(cause))} certainly` : ""]);
    repeats.show(lines, "None: nothing has run twice.");
    const kinds = new Map();
    for (const phase of pipeline.phases) for (const [kind, n] of phase.failures) kinds.set(kind, (kinds.get(kind) ?? 0) + n);
    tries.show([...kinds].sort((a, b) => b[1] - a[1]).map(([kind, n]) => [failure(kind), n]), "None has failed.");
    const { manager, journal } = pipeline;
    reconcile(facts, manager ? [
      ["manager", `${manager.manager}, started ${plural(manager.epoch, "time")} on this journal`],
      ["version", manager.version],
      ["journal", `${manager.storage}: ${bytes(journal.page_bytes)} in ${plural(journal.pages, "page")}, ${bytes(journal.disk_bytes)} on disk, ${plural(journal.commits, "commit")}`],
      ["listens at", [...manager.pull, ...manager.sub, ...manager.pub].join(", ")],
      ...pipeline.counters.filter(([name]) => !/messages|bytes|connections_(open|accepted)|events_published/.test(name)).map(([name, value]) => [name.replaceAll("_", " "), count(value)]),
    ] : [], ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd", {})), (each, [, value]) => say(each.lastChild, value));
  }

  let closedMinute = 0;
  // Plots are drawn when their numbers change, not with every message.
  let plotted = "";
  const view = {
    node,
    stream: () => ({ topics: ["points"], pipeline: context.key }),
    heard(event, data) {
      // Whatever was missed between two streams is asked for anew.
      if (event === "hello" && greeted) {
        store.points.delete(context.key);
        load();
      }
      greeted ||= event === "hello";
      if (event !== "points" || data.pipeline !== context.key || chosen[1] !== "minute") return;
      const minute = Math.floor(data.points.at(-1).at / 60e6);
      if (minute !== closedMinute && closedMinute) load();
      closedMinute = minute;
    },
    draw(anew = false) {
      const pipeline = context.pipeline();
      const phases = pipeline.phases.map((phase) => phase.job_type);
      if (drawn !== phases.join("\n")) build(phases);
      say(heading, pipeline.key);
      // Nobody knows how a lost manager is, or how fast it goes.
      const isLive = pipeline.reach === "live";
      say(state, isLive ? (pipeline.state ?? "") : pipeline.reach);
      state.dataset.state = isLive ? (pipeline.state ?? "") : pipeline.reach;
      say(pause, pipeline.state === "paused" ? "Resume the pipeline" : "Pause the pipeline");
      say(figures.live.value, count(pipeline.live));
      say(figures.done.value, count(pipeline.success));
      say(figures.rate.value, isLive ? rate(pipeline.rates?.done) : "–");
      say(figures.failed.value, count(pipeline.failed));
      figures.failed.node.classList.toggle("bad", pipeline.failed > 0);
      const { available = 0, lost = 0 } = pipeline.workers ?? {};
      say(figures.workers.value, lost ? `${available}, ${lost} lost` : available);
      figures.workers.node.classList.toggle("bad", lost > 0);
      const repeated = pipeline.reruns ?? pipeline.duplicates;
      say(figures.repeated.value, count(repeated));
      figures.repeated.node.classList.toggle("warn", repeated > 0);
      first.hidden = pipeline.enqueued > 0 || pipeline.reach !== "live";
      if (!first.hidden && !first.firstChild) first.append("No job has come yet. Send one: ", el("code", {}, `carbontube enqueue ${pipeline.api} ${pipeline.key} '{"hello": "world"}'`));
      const live = store.points.get(context.key);
      pipeline.phases.forEach((phase, index) => {
        cards.get(phase.job_type)?.update(phase, pipeline, live?.phases.get(phase.job_type));
        edges[index]?.update(isLive ? phase.rates?.arrived : null);
      });
      edges.at(-1)?.update(isLive ? pipeline.rates?.done : null);
      const points = chosen === SPANS[0] ? live : shown;
      const mark = points ? `${chosen[0]} ${points.from} ${points.length}` : "";
      if (points && (anew || mark !== plotted)) plot(points);
      plotted = mark;
      explain(pipeline);
    },
    close() {
      closed = true;
      charts.forEach((chart) => chart.close());
      store.points.delete(context.key);
    },
  };
  load();
  return view;
}
