// Line plots on a canvas, small and quick: one column a pixel at most.

import { el, say } from "./dom.js";
import { time } from "./format.js";

/** How wide a bin is at least, in pixels. */
const BIN_PX = 3;
const MARGIN = { left: 8, right: 8, top: 8, bottom: 18 };

/** What the variables of colours stand for, in a form that a canvas understands. */
const known = new Map();

/** Forgets the colours: they are others now. */
export const forgetColours = () => known.clear();

function colour(canvas, name) {
  let found = known.get(name);
  if (!found) {
    canvas.style.color = `var(${name})`;
    found = getComputedStyle(canvas).color;
    known.set(name, found);
  }
  return found;
}

/** The next round number at or above `value`: 1, 2 or 5 times a power of ten. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const factor of [1, 2, 5, 10]) {
    if (value <= factor * power) return factor * power;
  }
  return 10 * power;
}

/** Makes a canvas as sharp as the screen; gives its pen and size, or nothing while it is hidden. */
function pad(canvas) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return null;
  const ratio = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide) canvas.width = wide;
  if (canvas.height !== high) canvas.height = high;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

/**
 * A plot with a title, a legend that shows the values under the pointer or else the last
 * ones, and a sentence for screen readers. With the keyboard it is a slider over time.
 * `lines`: `{name, colour (a CSS variable), format, fill, gaps}`; with `gaps` a zero means
 * that there was nothing to measure; with `mean` numbers that share a bin are averaged,
 * else the highest counts.
 */
export class Chart {
  constructor(title, lines) {
    this.lines = lines;
    this.canvas = el("canvas", { role: "slider", tabindex: "0", "aria-label": `${title} over time`, "aria-valuemin": "0" });
    this.legend = el("ul", { class: "legend" });
    this.values = lines.map((line) => {
      const value = el("b", {}, "–");
      this.legend.append(el("li", { data: { colour: line.colour } }, el("i", { "aria-hidden": "true" }), `${line.name} `, value));
      return value;
    });
    this.when = el("span", { class: "faint when" });
    this.node = el("figure", { class: "chart" }, el("figcaption", {}, el("span", {}, title), this.when), this.canvas, this.legend);
    this.hover = null;
    /** Called with the point that is looked at, so that plots side by side can follow. */
    this.pointed = () => {};
    this.data = { columns: lines.map(() => []), at: () => 0 };
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.look(null));
    this.canvas.addEventListener("keydown", (event) => this.step(event));
    this.canvas.addEventListener("focus", () => this.tell());
    this.canvas.addEventListener("blur", () => this.look(null));
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.canvas);
  }

  /** Stops watching the size. */
  close() {
    this.resized.disconnect();
  }

  /** `columns` has one list of numbers for each line; `at(index)` is a point's time. */
  show(columns, at) {
    this.data = { columns, at };
    this.draw();
    // A slider in focus speaks whenever its value changes: only its user's keys do that.
    if (document.activeElement !== this.canvas) this.tell();
  }

  get length() {
    return this.data.columns[0]?.length ?? 0;
  }

  point(x) {
    const width = this.canvas.clientWidth - MARGIN.left - MARGIN.right;
    const part = Math.min(1, Math.max(0, (x - MARGIN.left) / width));
    this.look(this.length < 2 ? null : Math.round(part * (this.length - 1)));
  }

  look(index) {
    if (index === this.hover) return;
    this.hover = index;
    this.draw();
    this.pointed(index);
  }

  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || this.length < 2) return;
    event.preventDefault();
    const from = this.hover ?? this.length - 1;
    this.look(Math.min(this.length - 1, Math.max(0, from + by)));
    this.tell();
  }

  draw() {
    const { canvas, lines } = this;
    const drawing = pad(canvas);
    if (!drawing) return;
    const { pen, width, height } = drawing;
    const plot = { x: MARGIN.left, y: MARGIN.top, w: width - MARGIN.left - MARGIN.right, h: height - MARGIN.top - MARGIN.bottom };
    const bins = this.binned(plot.w);
    const most = roundUp(Math.max(...bins.map((points) => points.reduce((high, [, value]) => Math.max(high, value), 0)), 0));
    this.isEmpty = this.length < 2 || bins.every((points) => points.every(([, value]) => !value));
    this.grid(pen, plot);
    lines.forEach((line, index) => this.line(pen, plot, most, bins[index], line));
    this.scale(pen, plot, most);
    this.read(pen, plot);
  }

  /**
   * For each line `[index, value]` of bins that are wide enough to be told apart. Bins begin
   * at round times, so that they do not change as time goes on.
   */
  binned(width) {
    const { columns, at } = this.data;
    this.per = Math.max(1, Math.ceil(this.length / (width / BIN_PX)));
    const { per } = this;
    const first = this.length < 2 ? 0 : Math.round(at(0) / (at(1) - at(0))) % per;
    return columns.map((column, line) => {
      const points = [];
      for (let start = -first; start < column.length; start += per) {
        const [from, to] = [Math.max(0, start), Math.min(start + per, column.length)];
        // A bin that has only begun would show too little.
        if (to - from < per && points.length && to === column.length) break;
        points.push([(from + to - 1) / 2, this.merge(line, from, to)]);
      }
      return points;
    });
  }

  /** The one number of a line for the points from `from` to before `to`. */
  merge(line, from, to) {
    const part = this.data.columns[line].slice(from, to);
    return this.lines[line].mean ? part.reduce((a, b) => a + b, 0) / Math.max(1, part.length) : part.reduce((a, b) => Math.max(a, b), 0);
  }

  grid(pen, plot) {
    pen.strokeStyle = colour(this.canvas, "--line");
    pen.lineWidth = 1;
    for (const part of [0, 0.5, 1]) {
      const y = Math.round(plot.y + plot.h * (1 - part)) + 0.5;
      pen.beginPath();
      pen.moveTo(plot.x, y);
      pen.lineTo(plot.x + plot.w, y);
      pen.stroke();
    }
  }

  /** The numbers at the lines, over what is plotted, with a rim that keeps them legible. */
  scale(pen, plot, most) {
    pen.font = "11px system-ui, sans-serif";
    pen.lineWidth = 4;
    pen.lineJoin = "round";
    pen.strokeStyle = colour(this.canvas, "--card");
    pen.fillStyle = colour(this.canvas, "--faint");
    const write = (text, x, y) => {
      pen.strokeText(text, x, y);
      pen.fillText(text, x, y);
    };
    if (this.isEmpty) return write("nothing measured yet", plot.x + plot.w / 2 - pen.measureText("nothing measured yet").width / 2, plot.y + plot.h / 2 - 4);
    for (const part of [0.5, 1]) write(this.lines[0].format(most * part), plot.x + 2, plot.y + plot.h * (1 - part) + 12);
    if (this.length < 2) return;
    write(time(this.data.at(0)), plot.x, plot.y + plot.h + 14);
    const last = time(this.data.at(this.length - 1));
    write(last, plot.x + plot.w - pen.measureText(last).width, plot.y + plot.h + 14);
  }

  line(pen, plot, most, points, { colour: name, fill, gaps }) {
    if (this.length < 2) return;
    const inked = colour(this.canvas, name);
    const floor = plot.y + plot.h;
    let run = [];
    const stroke = () => {
      if (!run.length) return;
      pen.beginPath();
      if (run.length === 1) pen.arc(run[0][0], run[0][1], 1.4, 0, 7);
      else run.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.strokeStyle = inked;
      pen.lineWidth = 1.6;
      pen.lineJoin = "round";
      pen.stroke();
      if (fill && run.length > 1) {
        pen.lineTo(run.at(-1)[0], floor);
        pen.lineTo(run[0][0], floor);
        pen.closePath();
        pen.globalAlpha = 0.12;
        pen.fillStyle = inked;
        pen.fill();
        pen.globalAlpha = 1;
      }
      run = [];
    };
    for (const [index, value] of points) {
      if (gaps && !value) stroke();
      else run.push([plot.x + (index / (this.length - 1)) * plot.w, plot.y + plot.h * (1 - value / most)]);
    }
    stroke();
  }

  /** The point that is read: the one that is looked at, or the last. */
  get index() {
    return this.hover === null ? this.length - 1 : Math.min(this.hover, this.length - 1);
  }

  texts() {
    return this.lines.map((line, number) => {
      const end = this.index + 1;
      let value = this.merge(number, Math.max(0, end - (this.per ?? 1)), end);
      // The last bin may have had nothing to measure.
      if (line.gaps && this.hover === null && !value) value = this.data.columns[number].findLast((each) => each > 0) ?? 0;
      return end < 1 || (line.gaps && !value) ? "–" : line.format(value);
    });
  }

  read(pen, plot) {
    const { index } = this;
    if (this.hover !== null && this.length > 1) {
      const x = plot.x + (index / (this.length - 1)) * plot.w;
      pen.strokeStyle = colour(this.canvas, "--faint");
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(x, plot.y);
      pen.lineTo(x, plot.y + plot.h);
      pen.stroke();
    }
    this.texts().forEach((text, number) => say(this.values[number], text));
    say(this.when, this.hover === null || index < 0 ? "" : time(this.data.at(index)));
  }

  /** Puts the value into words for screen readers. */
  tell() {
    const { index } = this;
    const texts = this.texts();
    const spoken = this.lines.map((line, number) => `${line.name} ${texts[number]}`).join(", ");
    this.canvas.setAttribute("aria-valuemax", Math.max(0, this.length - 1));
    this.canvas.setAttribute("aria-valuenow", Math.max(0, index));
    this.canvas.setAttribute("aria-valuetext", index < 0 ? "nothing measured yet" : `${time(this.data.at(index))}: ${spoken}`);
  }
}

/** A small line without axes. */
export function spark(canvas, column) {
  if (column.length < 2) return;
  const drawing = pad(canvas);
  if (!drawing) return;
  const { pen, width, height } = drawing;
  const most = Math.max(1, ...column);
  pen.beginPath();
  column.forEach((value, index) => {
    const x = (index / (column.length - 1)) * width;
    const y = height - 2 - (value / most) * (height - 4);
    if (index === 0) pen.moveTo(x, y);
    else pen.lineTo(x, y);
  });
  pen.strokeStyle = colour(canvas, "--accent");
  pen.lineWidth = 1.4;
  pen.stroke();
}
