// One line of a log, as an element.

import { el, moment } from "./dom.js";
import { brief, exactly, worker8 } from "./format.js";

/** `origin` shows whose line it is, with links. */
export function lineNode(context, line, { origin = false } = {}) {
  return el("li", { data: { level: line.level } },
    moment(line.at, exactly(line.at)),
    el("span", { class: "level" }, line.level),
    origin ? el("span", { class: "origin", title: `worker ${worker8(line.worker)}, job ${line.job}` }, `${line.job_type} `, line.job ? el("a", { href: context.href("job", [line.job]) }, brief(line.job)) : null) : null,
    el("span", { class: "text" }, line.text));
}
