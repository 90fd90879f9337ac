// Dead letters, grouped by what went wrong.

import { base, get } from "./api.js";
import { act } from "./actions.js";
import { button, choices, el, emptiness, moment, reconcile, say } from "./dom.js";
import { brief, count, failure, plural, time } from "./format.js";

/** How many jobs a sample is. */
const SAMPLE = 10;
/** The shortest pause between two loads while failures come in, in milliseconds. */
const PAUSE_MS = 2000;

export function failures(context) {
  const list = el("div", { class: "groups" });
  const empty = emptiness();
  const total = el("p", { class: "faint" });
  const phase = el("select", { "aria-label": "Phase", on: { change: () => view.draw() } });
  const search = el("input", { type: "search", placeholder: "error has", "aria-label": "Search errors", data: { search: "" }, on: { input: () => view.draw() } });
  let groups = null;
  let trouble = null;
  let timer = null;
  let loadedAt = 0;
  let closed = false;

  async function load() {
    clearTimeout(timer);
    timer = null;
    loadedAt = performance.now();
    try {
      ({ groups } = await get(`${base(context.key)}/failures`));
      trouble = null;
    } catch (error) {
      trouble = error;
    }
    if (!closed) view.draw();
  }

  async function change(body, options) {
    if (await act(context.key, body, options)) load();
  }

  function card(group) {
    const id = group.group;
    const retry = { action: "retry", group: id };
    const what = (verb) => ({ "aria-label": `${verb}: ${group.signature.slice(0, 80)}` });
    return el("article", { class: "card group", "aria-label": group.signature.slice(0, 120), data: { group: id } },
      el("header", {}, el("b", { class: "count" }), el("h2", {}, group.signature)),
      el("p", { class: "about" }, el("span", {}, group.job_type), el("span", { class: "state", data: { state: "failed" } }, failure(group.kind)), el("span", { class: "faint" })),
      el("p", { class: "sample" }, el("span", { class: "faint" }, "for example "), el("a", { class: "mono" }), el("span", {})),
      el("footer", {},
        el("a", { href: context.href("jobs", [], { group: id, state: "failed" }), ...what("See the jobs") }, "see the jobs"),
        el("span", { class: "spring" }),
        button("Retry one", () => change({ ...retry, limit: 1 }, { title: "Retry one of them?", verb: "Retry one", text: "One job of this group runs again; look whether it succeeds before you retry the others." }), { class: "quiet small change", ...what("Retry one") }),
        button(`Retry ${SAMPLE}`, () => change({ ...retry, limit: SAMPLE }, { title: `Retry ${SAMPLE} of them?`, verb: `Retry ${SAMPLE}`, text: `Up to ${SAMPLE} jobs of this group run again, those that failed first.` }), { class: "quiet small change", ...what(`Retry ${SAMPLE}`) }),
        button("Retry all", () => change(retry, { title: "Retry all of them?", verb: "Retry all", text: "Every job of this group runs again from the phase that failed." }), { class: "small change", ...what("Retry all") }),
        button("Discard all", () => change({ action: "discard", group: id }, { title: "Discard all of them?", verb: "Discard all", kind: "danger", text: "Every job of this group is forgotten; this cannot be undone." }), { class: "danger small change", ...what("Discard all") })));
  }

  function fill(node, group) {
    const [header, about, sample, footer] = node.children;
    say(header.firstChild, count(group.count));
    header.firstChild.title = plural(group.count, "failed job");
    const when = about.lastChild;
    if (when.dataset.at !== `${group.first_at} ${group.last_at}`) {
      when.dataset.at = `${group.first_at} ${group.last_at}`;
      const last = moment(group.last_at, time(group.last_at));
      when.replaceChildren(...(group.count === 1 ? [last] : ["first ", moment(group.first_at, time(group.first_at)), ", last ", last]));
    }
    const [, link, message] = sample.children;
    say(link, brief(group.sample));
    link.title = group.sample;
    link.href = context.href("job", [group.sample]);
    say(message, group.message === group.signature ? "" : `: ${group.message}`);
    const [, , one, some, all, discard] = footer.children;
    one.hidden = group.count < 2;
    some.hidden = group.count <= SAMPLE;
    say(all, group.count === 1 ? "Retry" : "Retry all");
    say(discard, group.count === 1 ? "Discard" : "Discard all");
  }

  const view = {
    node: el("div", { class: "page" }, el("div", { class: "row title" }, el("h1", {}, "Failures"), el("span", { class: "spring" }), search, phase), total, list, empty.node),
    stream: () => ({ topics: ["jobs"], pipeline: context.key }),
    heard(event, data) {
      if (event === "hello" && groups) load();
      if (event !== "jobs" || data.pipeline !== context.key || timer) return;
      const touches = data.left_out || data.jobs.some((job) => job.state === "failed" || groups?.some((group) => group.sample === job.id));
      if (touches) timer = setTimeout(load, Math.max(0, loadedAt + PAUSE_MS - performance.now()));
    },
    draw() {
      choices(phase, "all phases", context.pipeline().phases.map((each) => each.job_type), phase.drawn === undefined ? (context.parameters.get("phase") ?? "") : phase.value);
      const wanted = search.value.toLowerCase();
      const shown = (groups ?? []).filter((group) => !phase.value || group.job_type === phase.value).filter((group) => !wanted || `${group.signature} ${group.message}`.toLowerCase().includes(wanted));
      const jobs = shown.reduce((sum, group) => sum + group.count, 0);
      say(total, shown.length ? `${plural(jobs, "failed job")} in ${plural(shown.length, "group")}. Numbers, ids and paths in errors are left out of the comparison and stand as #.` : "");
      reconcile(list, shown, (group) => group.group, card, fill);
      if (shown.length || (groups === null && !trouble)) empty.say("");
      else if (trouble) empty.say("They could not be loaded.", trouble.message);
      else if (groups.length) empty.say("No group fits.");
      else empty.say("Nothing has failed.", "Jobs that fail for good are kept here until they are retried or discarded.");
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
  load();
  return view;
}
