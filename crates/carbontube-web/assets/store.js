// What the page knows: filled by the stream, read by the views.

/** How many seconds of plots are kept. */
const SECONDS_MAX = 600;

export const TRACKS = ["arrived", "done", "failed", "p50_us", "p99_us", "wait_p50_us", "wait_p99_us", "backlog", "running"];

export const store = {
  /** What `hello` said. */
  about: { version: "", instance: "", read_only: false },
  /** Pipelines by key, in the server's order; each with `seenAt`, when its age was told. */
  pipelines: new Map(),
  /** How every pipeline is reached, by key, or by address before it was: also of those that
   * the stream of this view leaves out. */
  all: new Map(),
  /** Workers by pipeline, then id. */
  workers: new Map(),
  /** The event log by pipeline. */
  notes: new Map(),
  /** Seconds of plots by pipeline. */
  points: new Map(),
};

/** How old the picture of a pipeline is, in milliseconds. */
export function age(pipeline) {
  return pipeline.age_ms + (performance.now() - pipeline.seenAt);
}

/** The manager's time now, as far as it can be told from here, in microseconds. */
export function managerNow(pipeline) {
  return pipeline?.at ? pipeline.at + age(pipeline) * 1000 : Date.now() * 1000;
}

function keyOf(pipeline) {
  return pipeline.key || pipeline.api;
}

/** Takes up a message of the stream; says which parts of the store it changed. */
export function take(event, data) {
  const now = performance.now();
  switch (event) {
    case "hello":
      store.about = data;
      store.pipelines.clear();
      store.workers.clear();
      store.notes.clear();
      break;
    case "clock":
      store.all = new Map(Object.entries(data.pipelines));
      for (const [key, clock] of store.all) {
        const pipeline = store.pipelines.get(key);
        if (pipeline) Object.assign(pipeline, clock, { seenAt: now });
      }
      break;
    case "pipelines":
      for (const pipeline of data.pipelines) {
        const key = keyOf(pipeline);
        // It had no name before its manager answered for the first time.
        if (key !== pipeline.api) store.pipelines.delete(pipeline.api);
        store.pipelines.set(key, { ...pipeline, id: key, seenAt: now });
      }
      break;
    case "workers": {
      const known = data.full ? new Map() : (store.workers.get(data.pipeline) ?? new Map());
      for (const worker of data.workers) known.set(worker.worker, worker);
      for (const gone of data.gone ?? []) known.delete(gone);
      store.workers.set(data.pipeline, known);
      break;
    }
    case "points": {
      const kept = store.points.get(data.pipeline);
      if (kept) kept.push(data.points);
      break;
    }
    case "notes": {
      const kept = store.notes.get(data.pipeline) ?? [];
      const last = kept.at(-1);
      const fresh = data.notes.filter((note) => !last || note.at > last.at || !kept.some((old) => old.at === note.at && old.text === note.text));
      store.notes.set(data.pipeline, [...kept, ...fresh].slice(-1000));
      break;
    }
  }
}

/** The plots of one pipeline: columns by track, for all of it and for each phase. */
export class Points {
  constructor(series) {
    this.step = series.step === "minute" ? 60e6 : 1e6;
    this.from = series.from;
    this.total = series.total;
    this.phases = new Map(series.phases.map((phase) => [phase.job_type, phase.track]));
    this.cut(this.step === 1e6 ? SECONDS_MAX : Infinity);
  }

  get length() {
    return this.total.done.length;
  }

  /** The time of the point at an index. */
  at(index) {
    return this.from + index * this.step;
  }

  cut(most) {
    const over = this.length - most;
    if (!(over > 0)) return;
    this.from += over * this.step;
    for (const track of [this.total, ...this.phases.values()]) {
      for (const name of TRACKS) track[name]?.splice(0, over);
    }
  }

  /** Adds closed seconds; those that are known already are left alone. */
  push(points) {
    if (this.step !== 1e6) return;
    for (const point of points) {
      const index = Math.round((point.at - this.from) / this.step);
      if (index < this.length) continue;
      // Seconds that were missed while there was no stream show as a pause.
      while (this.length < index && index - this.length < SECONDS_MAX) this.append({ total: {}, phases: [] });
      this.append(point);
    }
    this.cut(SECONDS_MAX);
  }

  append(point) {
    const phases = new Map(point.phases.map((phase) => [phase.job_type, phase]));
    const add = (track, values) => {
      for (const name of TRACKS) track[name]?.push(values?.[name] ?? 0);
    };
    add(this.total, point.total);
    for (const [job_type, track] of this.phases) add(track, phases.get(job_type));
  }
}
