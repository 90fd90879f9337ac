// The one event stream of this page, and how old the picture is.

import { query } from "./api.js";

/** After how long without a message the web server counts as lost, in milliseconds. */
const SILENT_MS = 3000;
/** The pauses between tries to open the stream again: the first and the longest. */
const PAUSE_MS = [500, 5000];

const EVENTS = ["hello", "clock", "pipelines", "workers", "points", "jobs", "progress", "logs", "notes"];

/**
 * Keeps a stream open and tells what comes.
 * `listener(event, data)` gets each message; `age()` says how it stands.
 */
export class Stream {
  constructor(listener) {
    this.listener = listener;
    this.source = null;
    this.parameters = {};
    this.heardAt = performance.now();
    this.wasOpen = false;
    this.pause = PAUSE_MS[0];
    this.timer = null;
  }

  /** Opens the stream with these parameters, unless that is how it is open now. */
  open(parameters) {
    const same = JSON.stringify(parameters) === JSON.stringify(this.parameters);
    if (same && this.source) return;
    this.parameters = parameters;
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource(`/api/v1/stream${query(this.parameters)}`);
    this.source = source;
    for (const event of EVENTS) {
      source.addEventListener(event, (message) => {
        if (this.source !== source) return;
        this.heardAt = performance.now();
        this.wasOpen = true;
        this.pause = PAUSE_MS[0];
        this.listener(event, JSON.parse(message.data));
      });
    }
    source.addEventListener("error", () => {
      if (this.source !== source) return;
      // The browser's own tries stop for good after an answer that is no stream.
      source.close();
      this.source = null;
      this.timer = setTimeout(() => this.connect(), this.pause);
      this.pause = Math.min(this.pause * 2, PAUSE_MS[1]);
      this.listener("broken", {});
    });
  }

  /** For how long nothing came, in milliseconds. */
  silent() {
    return performance.now() - this.heardAt;
  }

  isLost() {
    return this.silent() > SILENT_MS;
  }
}
