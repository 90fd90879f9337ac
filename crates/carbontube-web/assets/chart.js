// Line plots on a canvas, small and quick: one column a pixel at most.

import { el, say } from "./dom.js";
import { time } from "./format.js";

const MARGIN = { left: 8, right: 8, top: 8, bottom: 18 };

/** The colour that a variable stands for here, in a form that a canvas understands. */
function resolved(canvas, name) {
  canvas.style.color = `var(${name})`;
  return getComputedStyle(canvas).color;
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

/**
 * A plot with a title, a legend that shows the values under the pointer or else the last
 * ones, and a sentence for screen readers.
 * `lines`: `{name, colour (a CSS variable), format, fill}`.
 */
export class Chart {
  constructor(title, lines) {
    this.lines = lines;
    this.canvas = el("canvas", { role: "img", tabindex: "0", "aria-label": title });
    this.legend = el("ul", { class: "legend" });
    this.values = lines.map((line) => {
      const value = el("b", {}, "–");
      this.legend.append(el("li", { data: { colour: line.colour } }, el("i", { "aria-hidden": "true" }), `${line.name} `, value));
      return value;
    });
    this.when = el("span", { class: "faint when" });
    this.node = el("figure", { class: "chart" }, el("figcaption", {}, el("span", {}, title), this.when), this.canvas, this.legend);
    this.title = title;
    this.hover = null;
    this.data = { columns: lines.map(() => []), at: () => 0 };
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("keydown", (event) => this.step(event));
    this.canvas.addEventListener("blur", () => this.point(null));
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
  }

  get length() {
    return this.data.columns[0]?.length ?? 0;
  }

  point(x) {
    const width = this.canvas.clientWidth - MARGIN.left - MARGIN.right;
    const part = x === null ? null : Math.min(1, Math.max(0, (x - MARGIN.left) / width));
    this.hover = part === null || this.length < 2 ? null : Math.round(part * (this.length - 1));
    this.draw();
  }

  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || this.length < 2) return;
    event.preventDefault();
    const from = this.hover ?? this.length - 1;
    this.hover = Math.min(this.length - 1, Math.max(0, from + by));
    this.draw();
  }

  draw() {
    const { canvas, lines } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const colour = (name) => resolved(canvas, name);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const plot = { x: MARGIN.left, y: MARGIN.top, w: width - MARGIN.left - MARGIN.right, h: height - MARGIN.top - MARGIN.bottom };
    const most = roundUp(Math.max(...this.data.columns.map((column) => column.reduce((a, b) => Math.max(a, b), 0)), 0));
    this.grid(pen, plot, most, colour);
    lines.forEach((line, index) => this.line(pen, plot, most, this.data.columns[index], colour(line.colour), line.fill));
    this.read(pen, plot, colour);
  }

  grid(pen, plot, most, colour) {
    pen.strokeStyle = colour("--line");
    pen.fillStyle = colour("--faint");
    pen.font = "11px system-ui, sans-serif";
    pen.lineWidth = 1;
    for (const part of [0, 0.5, 1]) {
      const y = Math.round(plot.y + plot.h * (1 - part)) + 0.5;
      pen.beginPath();
      pen.moveTo(plot.x, y);
      pen.lineTo(plot.x + plot.w, y);
      pen.stroke();
      if (part > 0) pen.fillText(this.lines[0].format(most * part), plot.x + 2, y + 12);
    }
    if (this.length < 2) return;
    pen.fillText(time(this.data.at(0)), plot.x, plot.y + plot.h + 14);
    const last = time(this.data.at(this.length - 1));
    pen.fillText(last, plot.x + plot.w - pen.measureText(last).width, plot.y + plot.h + 14);
  }

  line(pen, plot, most, column, colour, fill) {
    if (column.length < 2) return;
    // More points than pixels: the highest of each pixel, so that no spike is lost.
    const per = Math.max(1, Math.floor(column.length / plot.w));
    pen.beginPath();
    for (let start = 0; start < column.length; start += per) {
      let high = column[start];
      for (let index = start + 1; index < Math.min(start + per, column.length); index += 1) high = Math.max(high, column[index]);
      const x = plot.x + (start / (column.length - 1)) * plot.w;
      const y = plot.y + plot.h * (1 - high / most);
      if (start === 0) pen.moveTo(x, y);
      else pen.lineTo(x, y);
    }
    pen.strokeStyle = colour;
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    pen.stroke();
    if (!fill) return;
    pen.lineTo(plot.x + plot.w, plot.y + plot.h);
    pen.lineTo(plot.x, plot.y + plot.h);
    pen.closePath();
    pen.globalAlpha = 0.12;
    pen.fillStyle = colour;
    pen.fill();
    pen.globalAlpha = 1;
  }

  read(pen, plot, colour) {
    const index = this.hover === null ? this.length - 1 : Math.min(this.hover, this.length - 1);
    if (this.hover !== null && this.length > 1) {
      const x = plot.x + (index / (this.length - 1)) * plot.w;
      pen.strokeStyle = colour("--faint");
      pen.beginPath();
      pen.moveTo(x, plot.y);
      pen.lineTo(x, plot.y + plot.h);
      pen.stroke();
    }
    const texts = this.lines.map((line, number) => (index < 0 ? "–" : line.format(this.data.columns[number][index])));
    texts.forEach((text, number) => say(this.values[number], text));
    say(this.when, this.hover === null || index < 0 ? "" : time(this.data.at(index)));
    const spoken = this.lines.map((line, number) => `${line.name} ${texts[number]}`).join(", ");
    this.canvas.setAttribute("aria-label", `${this.title}: ${spoken}. Left and right arrows go through the times.`);
  }
}

/** A small line without axes, drawn once for given numbers. */
export function spark(canvas, column) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || column.length < 2) return;
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const most = Math.max(1, ...column);
  pen.beginPath();
  column.forEach((value, index) => {
    const x = (index / (column.length - 1)) * width;
    const y = height - 2 - (value / most) * (height - 4);
    if (index === 0) pen.moveTo(x, y);
    else pen.lineTo(x, y);
  });
  pen.strokeStyle = resolved(canvas, "--accent");
  pen.lineWidth = 1.4;
  pen.stroke();
}
