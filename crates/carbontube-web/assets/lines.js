// One line of a log, as an element.

import { el } from "./dom.js";
import { brief, exactly } from "./format.js";

/** `origin` shows whose line it is, with links. */
export function lineNode(context, line, { origin = false } = {}) {
  return el("li", { data: { level: line.level } },
    el("time", {}, exactly(line.at)),
    el("span", { class: "level" }, line.level),
    origin ? el("span", { class: "origin" }, `${line.job_type} `, line.job ? el("a", { href: context.href("job", [line.job]), title: line.job }, brief(line.job)) : null) : null,
    el("span", { class: "text" }, line.text));
}
