// Dead letters, grouped by what went wrong.

import { base, get } from "./api.js";
import { act } from "./actions.js";
import { button, el, nothing, reconcile, say } from "./dom.js";
import { brief, count, failure, plural, time } from "./format.js";

/** How many jobs a sample is. */
const SAMPLE = 10;
/** The shortest pause between two loads while failures come in, in milliseconds. */
const PAUSE_MS = 2000;

export function failures(context) {
  const list = el("div", { class: "groups" });
  const empty = el("div", {});
  const total = el("p", { class: "faint", role: "status" });
  const phase = el("select", { "aria-label": "Phase", on: { change: () => view.draw() } });
  const search = el("input", { type: "search", placeholder: "error has", "aria-label": "Search errors", data: { search: "" }, on: { input: () => view.draw() } });
  let groups = null;
  let trouble = null;
  let timer = null;
  let loadedAt = 0;
  let drawnPhases = null;

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
    view.draw();
  }

  async function change(body, options) {
    if (await act(context.key, body, options)) load();
  }

  function card(group) {
    const id = group.group;
    const retry = { action: "retry", group: id };
    return el("article", { class: "card group", data: { group: id } },
      el("header", {}, el("b", { class: "count" }), el("h3", {}, group.signature)),
      el("p", { class: "faint" }),
      el("p", { class: "sample" }, "for example ", el("a", { class: "mono" }), ": ", el("span", { class: "bad" })),
      el("footer", {},
        el("a", { href: context.href("jobs", [], { group: id, state: "failed" }) }, "see the jobs"),
        el("span", { class: "spring" }),
        button("Retry one", () => change({ ...retry, limit: 1 }, { title: "Retry one of them?", verb: "Retry one", text: "One job of this group runs again; look whether it succeeds before you retry the others." }), { class: "quiet small change" }),
        button(`Retry ${SAMPLE}`, () => change({ ...retry, limit: SAMPLE }, { title: `Retry ${SAMPLE} of them?`, verb: `Retry ${SAMPLE}`, text: `Up to ${SAMPLE} jobs of this group run again.` }), { class: "quiet small change" }),
        button("Retry all", () => change(retry, { title: "Retry all of them?", verb: "Retry all", text: "Every job of this group runs again from the phase that failed." }), { class: "small change" }),
        button("Discard all", () => change({ action: "discard", group: id }, { title: "Discard all of them?", verb: "Discard all", kind: "danger", text: "Every job of this group is forgotten; this cannot be undone." }), { class: "danger small change" })));
  }

  function fill(node, group) {
    const [header, about, sample] = node.children;
    say(header.firstChild, count(group.count));
    say(about, `${group.job_type} · ${failure(group.kind)} · ${group.count === 1 ? time(group.last_at) : `${time(group.first_at)} to ${time(group.last_at)}`}`);
    const link = sample.children[0];
    say(link, brief(group.sample));
    link.title = group.sample;
    link.href = context.href("job", [group.sample]);
    say(sample.children[1], group.message);
  }

  const view = {
    node: el("div", { class: "page" }, el("div", { class: "row title" }, el("h1", {}, "Failures"), el("span", { class: "spring" }), search, phase), total, list, empty),
    stream: () => ({ topics: ["jobs"], pipeline: context.key }),
    heard(event, data) {
      if (event !== "jobs" || data.pipeline !== context.key || timer) return;
      const touches = data.left_out || data.jobs.some((job) => job.state === "failed" || groups?.some((group) => group.sample === job.id));
      if (touches) timer = setTimeout(load, Math.max(0, loadedAt + PAUSE_MS - performance.now()));
    },
    draw() {
      const names = context.pipeline().phases.map((each) => each.job_type);
      if (drawnPhases !== names.join("\n")) {
        drawnPhases = names.join("\n");
        phase.replaceChildren(el("option", { value: "" }, "all phases"), ...names.map((name) => el("option", { value: name }, name)));
      }
      const wanted = search.value.toLowerCase();
      const shown = (groups ?? []).filter((group) => !phase.value || group.job_type === phase.value).filter((group) => !wanted || `${group.signature} ${group.message}`.toLowerCase().includes(wanted));
      const jobs = shown.reduce((sum, group) => sum + group.count, 0);
      say(total, shown.length ? `${plural(jobs, "failed job")} in ${plural(shown.length, "group")}; numbers, ids and paths in errors are left out of the comparison` : "");
      reconcile(list, shown, (group) => group.group, card, fill);
      empty.replaceChildren(...(groups === null && !trouble ? [] : shown.length ? [] : [trouble ? nothing("They could not be loaded.", trouble.message) : groups.length ? nothing("No group fits.") : nothing("Nothing has failed.", "Jobs that fail for good are kept here until they are retried or discarded.")]));
    },
    close: () => clearTimeout(timer),
  };
  load();
  return view;
}
