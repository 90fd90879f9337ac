// The frame around the views: where we are, the stream, the clock, keys and colours.

import { ApiError, get, hooks, post } from "./api.js";
import { button, el, say } from "./dom.js";
import { dialog, toast } from "./actions.js";
import { forgetColours } from "./chart.js";
import { old, trouble } from "./format.js";
import { Stream } from "./stream.js";
import { age, store, take } from "./store.js";
import { pipelines } from "./pipelines.js";
import { overview } from "./overview.js";
import { workers } from "./workers.js";
import { jobs } from "./jobs.js";
import { job } from "./job.js";
import { failures } from "./failures.js";
import { logs } from "./logs.js";
import { events } from "./events.js";

/** The views with a tab, by the key that opens them. */
const TABS = [
  ["map", "Pipeline", "p"],
  ["workers", "Workers", "w"],
  ["jobs", "Jobs", "j"],
  ["failures", "Failures", "f"],
  ["logs", "Logs", "l"],
  ["events", "Events", "e"],
];
const VIEWS = { map: overview, workers, jobs, job, failures, logs, events };
const BASE_TOPICS = ["pipelines", "notes"];

const main = document.getElementById("main");
let place = { key: null, view: "map", rest: [], parameters: new URLSearchParams() };
let view = null;
let drawing = false;
// Whether the token was asked for and not given.
let declined = false;

/** Where a view is: what stands behind the `#`. */
export function href(key, name, rest = [], parameters = {}) {
  const path = [key, name, ...rest].map(encodeURIComponent).join("/");
  const search = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)).toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

function read() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [key, name, ...rest] = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { key: key ?? null, view: name in VIEWS ? name : "map", rest, parameters: new URLSearchParams(search ?? "") };
}

/** The pipeline that is looked at: the one in the address, or the only one. */
function current() {
  if (place.key) return store.pipelines.get(place.key) ?? null;
  return isSeveral() ? null : (store.pipelines.values().next().value ?? null);
}

const isSeveral = () => Math.max(store.all.size, store.pipelines.size) > 1;

/** Whether no pipeline of several is chosen: then all are shown. */
const isList = () => !place.key && isSeveral();

/** What should be shown now; another view is opened when it changes. */
const wanted = () => (isList() ? "all" : (current()?.id ?? null));

/** Opens what the address says. */
function go() {
  const before = place;
  place = read();
  const sameView = view && before.view === place.view && before.key === place.key && before.rest.join() === place.rest.join();
  if (sameView && view.moved?.(place)) return;
  open();
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function open() {
  view?.close?.();
  view = null;
  main.replaceChildren();
  const pipeline = current();
  if (!pipeline) {
    if (isList()) {
      view = pipelines(href);
      view.key = "all";
      main.replaceChildren(view.node);
    }
    listen({ topics: BASE_TOPICS.join(",") });
    draw();
    return;
  }
  const context = {
    pipeline: () => current() ?? pipeline,
    key: pipeline.key,
    rest: place.rest,
    parameters: place.parameters,
    canChange: () => !store.about.read_only,
    href: (name, rest, parameters) => href(pipeline.key, name, rest, parameters),
    replace: (parameters) => {
      const address = href(pipeline.key, place.view, place.rest, parameters);
      history.replaceState(null, "", address);
      place = read();
    },
  };
  view = VIEWS[place.view](context);
  view.name = place.view;
  view.key = pipeline.id;
  main.replaceChildren(view.node);
  const { topics = [], ...parameters } = view.stream?.() ?? {};
  listen({ topics: [...BASE_TOPICS, ...topics].join(","), ...parameters });
  draw();
}

/** A view calls this when it wants other events, such as other lines. */
export function listenAgain() {
  const { topics = [], ...parameters } = view?.stream?.() ?? {};
  listen({ topics: [...BASE_TOPICS, ...topics].join(","), ...parameters });
}

const stream = new Stream((event, data) => {
  take(event, data);
  if (event === "hello") {
    declined = false;
    note(data);
  }
  // A stream gives no status when it is refused: ask whether a token is needed.
  if (event === "broken" && !declined) get("/api/v1/overview").catch(() => {});
  if (event === "pipelines" && (view?.key ?? null) !== wanted()) open();
  else if (event === "clock" && view && isList() && view.key !== "all") open();
  view?.heard?.(event, data);
  draw();
});

function listen(parameters) {
  stream.open(parameters);
}

let instance = null;
function note(hello) {
  if (instance && instance !== hello.instance) toast("The web server was restarted; everything was loaded anew.");
  instance = hello.instance;
  document.body.classList.toggle("read-only", hello.read_only);
}

/** Draws with the next frame: many messages, one drawing. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    frame();
    if (view) view.draw?.();
    else waiting();
  });
}

function waiting() {
  const known = store.pipelines.size > 0;
  const text = known && place.key ? `There is no pipeline ${place.key} here.` : "Waiting for the first word of a manager…";
  if (main.dataset.waits === text && main.firstChild) return;
  main.dataset.waits = text;
  const more = known && place.key ? el("a", { href: "#/" }, "See those that there are") : "The address of a manager's api socket is given to carbontube web with --api-connect.";
  main.replaceChildren(el("div", { class: "nothing tall" }, el("h1", {}, text), el("p", { class: "faint" }, more)));
}

// The frame ------------------------------------------------------------------------------

const tabs = document.getElementById("tabs");
const chooser = document.getElementById("chooser");
const clock = document.getElementById("clock");
const banner = document.getElementById("banner");

function frame() {
  const pipeline = current();
  const key = pipeline?.key ?? "";
  if (tabs.dataset.key !== key || tabs.dataset.view !== place.view) {
    tabs.dataset.key = key;
    tabs.dataset.view = place.view;
    const shown = place.view === "job" ? "jobs" : place.view;
    tabs.replaceChildren(
      ...(key
        ? TABS.map(([name, label, letter]) =>
            el("a", { href: href(key, name), "aria-current": name === shown ? "page" : false, "aria-keyshortcuts": letter, title: `${label} (${letter})`, data: { view: name } }, label, name === "failures" ? el("span", { class: "badge", hidden: true }) : null),
          )
        : []),
    );
    // On a phone the bar of views may be wider than the window.
    tabs.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  const badge = tabs.querySelector(".badge");
  if (badge) {
    badge.hidden = !pipeline.failed;
    say(badge, pipeline.failed > 999 ? "999+" : pipeline.failed);
  }
  const named = [...store.all].filter(([, each]) => each.reach !== "connecting");
  const labels = named.map(([name, each]) => (each.reach === "lost" ? `${name} (lost)` : name));
  chooser.closest("label").hidden = !isSeveral();
  if (chooser.dataset.labels !== labels.join("\n")) {
    chooser.dataset.labels = labels.join("\n");
    chooser.replaceChildren(el("option", { value: "" }, "all pipelines"), ...named.map(([name], index) => el("option", { value: name }, labels[index])));
  }
  if (chooser.value !== key) chooser.value = key;
  document.title = key ? `${pipeline.failed ? `(${pipeline.failed}) ` : ""}${key} · Carbontube` : "Carbontube";
  tell();
}

/** The clock and the banner: how old what you see is. */
function tell() {
  const pipeline = current();
  let [reach, text, warning, since, more] = ["connecting", "connecting", "", "", ""];
  if (stream.isLost()) {
    reach = "lost";
    since = old(stream.silent());
    text = `web lost · ${since} old`;
    warning = "carbontube web has not been heard for";
    more = "What you see is from before; trying again.";
  } else if (pipeline) {
    reach = pipeline.reach;
    if (reach === "live") text = `live · ${old(age(pipeline))} old`;
    if (reach === "lost") {
      since = old(age(pipeline));
      text = `manager lost · ${since} old`;
      warning = `The manager of ${pipeline.key || pipeline.api} has not answered for`;
      more = `What you see is what it said last. ${trouble(pipeline)}`;
    } else if (reach === "connecting" && pipeline.trouble) {
      warning = `No manager has answered at ${pipeline.api} yet. ${trouble(pipeline)}`;
    } else if (pipeline.journal?.trouble) {
      warning = `The journal cannot be written; nothing is accepted until it can. ${pipeline.journal.trouble}`;
    }
  } else if (isList()) {
    const all = [...store.all.values()];
    const live = all.filter((each) => each.reach === "live").length;
    reach = live === all.length ? "live" : "lost";
    text = `${live} of ${all.length} live`;
  }
  clock.dataset.reach = reach;
  say(clock.lastElementChild, text);
  banner.hidden = !warning;
  // The alert is spoken once; the seconds that count on are for the eye.
  const [sentence, seconds, rest] = banner.children;
  say(sentence, warning);
  say(seconds, since ? ` ${since}. ` : "");
  say(rest, more);
  document.body.classList.toggle("stale", reach === "lost" && !isList());
}
setInterval(tell, 250);

chooser.addEventListener("change", () => {
  location.hash = chooser.value ? href(chooser.value, place.view === "job" ? "jobs" : place.view) : "#/";
});

// Colours --------------------------------------------------------------------------------

const COLOURS = ["system", "light", "dark"];

function colours(next) {
  const before = localStorage.getItem("colours") ?? "system";
  const wanted = next ? COLOURS[(COLOURS.indexOf(before) + 1) % COLOURS.length] : before;
  localStorage.setItem("colours", wanted);
  if (wanted === "system") delete document.documentElement.dataset.colours;
  else document.documentElement.dataset.colours = wanted;
  if (next) toast(`Colours: ${wanted === "system" ? "as the system" : wanted}.`);
  recolour();
}

/** What is drawn by hand is drawn again in the new colours. */
function recolour() {
  forgetColours();
  requestAnimationFrame(() => view?.draw?.(true));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
document.getElementById("theme").addEventListener("click", () => colours(true));

// Keys -----------------------------------------------------------------------------------

function help() {
  const row = (keys, text) => el("tr", {}, el("td", {}, el("kbd", {}, keys)), el("td", {}, text));
  dialog("Keys", (close) => [
    el("table", { class: "keys" }, el("tbody", {}, ...TABS.map(([, label, letter]) => row(letter, label)), row("/", "search on this page"), row("← →", "on a plot: go through the times"), row("t", "colours"), row("?", "these keys"), row("Esc", "close"))),
    el("div", { class: "row end" }, button("Close", () => close(null), { class: "quiet", autofocus: true })),
  ]);
}
document.getElementById("help").addEventListener("click", help);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.getElementById("dialog").open || event.target.closest?.("input, select, textarea")) return;
  const pipeline = current();
  const tab = TABS.find(([, , letter]) => letter === event.key);
  if (tab && pipeline?.key) location.hash = href(pipeline.key, tab[0]);
  else if (event.key === "/") document.querySelector("main [data-search]")?.focus();
  else if (event.key === "t") colours(true);
  else if (event.key === "?") help();
  else return;
  event.preventDefault();
});

// The token ------------------------------------------------------------------------------

let asking = false;
hooks.token = async () => {
  if (asking) return;
  asking = true;
  const input = el("input", { type: "password", autocomplete: "current-password", "aria-label": "Token", required: true });
  const token = await dialog("A token is needed", (close) => [
    el("form", { on: { submit: (event) => { event.preventDefault(); close(input.value); } } }, el("p", {}, "Give the token that carbontube web was started with."), input, el("div", { class: "row end" }, el("button", { type: "submit" }, "Open"))),
  ]);
  asking = false;
  declined = !token;
  if (!token) return;
  try {
    await post("/api/v1/session", { token });
    location.reload();
  } catch (error) {
    toast(error instanceof ApiError && error.code === "token" ? "That is not the token." : error.message, "bad");
    hooks.token();
  }
};

// ----------------------------------------------------------------------------------------

colours(false);
place = read();
window.addEventListener("hashchange", go);
open();
