// Numbers, times and sizes as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export function count(value) {
  if (value === null || value === undefined) return "–";
  return value < 100000 ? whole.format(value) : short.format(value);
}

/** A rate each second. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0/s";
  if (value < 10) return `${value.toFixed(1)}/s`;
  return `${value < 10000 ? whole.format(value) : short.format(value)}/s`;
}

/** A length of time given in milliseconds. */
export function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} days`;
}

/** A length of time in its largest unit, for what is only roughly of interest. */
export const roughly = (ms) => span(ms).replace(/^(\d+ (min|h)) .*/, "$1");

/** The same, given in microseconds. */
export const micros = (us) => (us === null || us === undefined ? "–" : span(us / 1000));

const clockOf = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayOf = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** A time of day, with the day when it is not today's; microseconds since 1970. */
export function time(us) {
  if (!us) return "–";
  const date = new Date(us / 1000);
  const today = new Date().toDateString() === date.toDateString();
  return today ? clockOf.format(date) : `${dayOf.format(date)}, ${clockOf.format(date)}`;
}

/** A time in full, to the millisecond, for titles. */
export function inFull(us) {
  if (!us) return "";
  const date = new Date(us / 1000);
  return `${dayOf.format(date)} ${date.getFullYear()}, ${exactly(us)}`;
}

/** A time of day to the millisecond, for logs. */
export function exactly(us) {
  const date = new Date(us / 1000);
  return `${clockOf.format(date)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  let left = value;
  while (left >= 1024 && step < units.length - 1) {
    left /= 1024;
    step += 1;
  }
  return `${step === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)} ${units[step]}`;
}

/** A worker's id as the command line and the event log write it. */
export const worker8 = (id) => (id ? id.slice(0, 8) : "–");

/** How old the picture is: one decimal, so that the width stays and the eye is left alone. */
export const old = (ms) => (ms < 60000 ? `${(ms / 1000).toFixed(1)} s` : span(ms));

/** The part of an id that tells it from its neighbours: the end of a generated one. */
export function brief(id) {
  if (!id) return "–";
  return /^[0-9a-f]{8}-[0-9a-f]{4}-/.test(id) ? `…${id.slice(-12)}` : id.length > 40 ? `${id.slice(0, 39)}…` : id;
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

const kinds = {
  error: "error",
  panic: "panic or kill",
  timeout: "timed out",
  output: "unusable output",
  cancelled: "cancelled",
  worker_lost: "worker lost",
  poison: "took its workers down",
};

/** A reason with its times as people read them: the manager writes seconds since 1970. */
export const reason = (text) => text.replace(/\b\d{9,11}\.\d{6}\b/g, (seconds) => time(Number(seconds) * 1e6));

/** What is wrong with reaching a manager, without digits that nobody reads. */
export const trouble = (pipeline) => (pipeline.trouble ?? "").replace(/(\d+\.\d)\d+s\b/g, "$1 s");

/** The kind of a failure in words. */
export const failure = (kind) => kinds[kind] ?? kind ?? "–";
