"use strict";
// Charts on canvases over one stretch of time that they share. All times are UTC milliseconds.

const SECOND = 1e3, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const NARROWEST = 10 * SECOND;

/** The last place whose time is not after `time`; -1 if there is none. */
function placeOf(times, time) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time) low = middle + 1; else high = middle;
  }
  return low - 1;
}

/** First and end of the places to draw: those in view, and a neighbour at either side to come from and go to. */
function inView(times, view) {
  return [Math.max(0, placeOf(times, view.from)), Math.min(times.length, placeOf(times, view.to) + 2)];
}

function timeTicks(from, to, count) {
  const steps = [SECOND, 5 * SECOND, 15 * SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE,
    HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY];
  const step = steps.find((step) => (to - from) / step <= count);
  const ticks = [];
  if (step) {
    const origin = step === 7 * DAY ? 4 * DAY : 0;  // A week begins on Monday.
    for (let time = Math.ceil((from - origin) / step) * step + origin; time <= to; time += step)
      ticks.push([time, shortTime(time, step)]);
    return dated(ticks);
  }
  const months = [1, 2, 3, 6, 12, 24, 60, 120].find((months) => (to - from) / (30.4 * DAY * months) <= count) || 240;
  const start = new Date(from);
  let month = Math.ceil((start.getUTCFullYear() * 12 + start.getUTCMonth()) / months) * months;
  for (let time; (time = Date.UTC(Math.floor(month / 12), month % 12)) <= to; month += months)
    if (time >= from) ticks.push([time, month % 12 ? MONTHS[month % 12] : String(month / 12)]);
  return dated(ticks);
}

/** The first label has the year, and the day if it is a time of day. */
function dated(ticks) {
  if (!ticks.length) return ticks;
  const [time, text] = ticks[0], year = new Date(time).getUTCFullYear();
  if (text.includes(":")) ticks[0][1] = `${shortTime(time, DAY)} ${text}`;
  else if (text !== String(year)) ticks[0][1] = `${text} ${year}`;
  return ticks;
}

function shortTime(time, step) {
  const date = new Date(time);
  if (step < DAY && time % DAY) return date.toISOString().slice(11, step < MINUTE ? 19 : 16);
  return `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}`;
}

function valueTicks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
  const decimals = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (step / power === 2.5 ? 1 : 0));
  const ticks = [];
  for (let place = Math.ceil(low / step); place * step <= high; place++) {
    const text = (place * step || 0).toLocaleString("en-US", {
      minimumFractionDigits: Math.min(decimals, 20), maximumFractionDigits: Math.min(decimals, 20),
    });
    ticks.push([place * step, text]);
  }
  return ticks;
}

/** The stretch of time in view, and the time at the pointer. */
class View {
  constructor(first, last) {
    this.first = first;
    this.last = Math.max(last, first + NARROWEST);
    this.charts = [];
    this.cursor = null;
    this.waiting = false;
    this.whole();
  }
  whole() { this.show(this.first, this.last); }
  show(from, to) {
    const span = Math.min(Math.max(to - from, NARROWEST), this.last - this.first);
    const middle = (from + to) / 2;
    this.from = Math.min(Math.max(middle - span / 2, this.first), this.last - span);
    this.to = this.from + span;
    this.cursor = null;
    this.redraw();
  }
  zoom(factor) {
    const half = (this.to - this.from) * factor / 2, middle = (this.from + this.to) / 2;
    this.show(middle - half, middle + half);
  }
  move(part) {
    const by = (this.to - this.from) * part;
    this.show(this.from + by, this.to + by);
  }
  point(time) { this.cursor = time; this.redraw(); }
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      for (const chart of this.charts) chart.measure();
      const gutter = Math.max(0, ...this.charts.map((chart) => chart.gutter));
      for (const chart of this.charts) chart.draw(gutter);
    });
  }
}

/**
 * A figure with a canvas. Its scene, which may be replaced, has `range(view)`: the least and the greatest value in view or
 * null, `draw(chart)`, `told(time)`: what the caption says of a time, and perhaps `tip(chart, x, y)`: what a box at the
 * pointer says, in lines.
 */
class Chart {
  constructor(figure, view) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.caption = figure.querySelector(".told");
    this.tip = figure.querySelector(".tip");
    this.view = view;
    this.scene = null;
    this.pointer = null;
    this.grip = null;
    this.right = 1;
    view.charts.push(this);
    new ResizeObserver(() => view.redraw()).observe(this.canvas);
    this.listen();
  }

  listen() {
    const place = (event) => [event.offsetX, event.offsetY];
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) this.grip = event.offsetX;
    });
    this.canvas.addEventListener("pointermove", (event) => {
      this.pointer = place(event);
      this.view.point(this.time(event.offsetX));
    });
    this.canvas.addEventListener("pointerleave", () => {
      this.pointer = this.grip = null;
      this.view.point(null);
    });
    this.canvas.addEventListener("pointerup", (event) => {
      const from = this.grip;
      this.grip = null;
      if (from !== null && Math.abs(event.offsetX - from) > 6) {
        const times = [this.time(from), this.time(event.offsetX)].sort((one, other) => one - other);
        this.view.show(...times);
      }
    });
    this.canvas.addEventListener("dblclick", () => this.view.whole());
  }

  x(time) { return (time - this.view.from) / (this.view.to - this.view.from) * this.right; }
  y(value) { return this.bottom - (value - this.low) / (this.high - this.low) * (this.bottom - this.top); }
  time(x) { return this.view.from + Math.min(Math.max(x / this.right, 0), 1) * (this.view.to - this.view.from); }
  color(name) { return this.style.getPropertyValue(`--${name}`); }

  /** Clears the canvas, and finds the values in view and the room that their labels need. */
  measure() {
    const { canvas, scene } = this, ratio = devicePixelRatio || 1;
    [this.width, this.height, this.gutter, this.values] = [canvas.clientWidth, canvas.clientHeight, 0, []];
    canvas.width = Math.round(this.width * ratio);
    canvas.height = Math.round(this.height * ratio);
    this.style = getComputedStyle(document.documentElement);
    this.pen = canvas.getContext("2d");
    this.pen.scale(ratio, ratio);
    this.pen.font = "12px system-ui, sans-serif";
    const range = scene && scene.range(this.view);
    this.caption.textContent = range ? "" : "nothing to show";
    this.tip.hidden = true;
    if (!range) return;
    const [low, high] = range, margin = (high - low || Math.abs(high) || 1) * 0.06;
    [this.low, this.high] = [low - margin, high + (scene.hangs ? 0 : margin)];
    [this.top, this.bottom] = [6, this.height - 20];
    this.values = valueTicks(this.low, this.high, Math.max(2, this.height / 55));
    for (const tick of this.values) tick[1] += scene.unit || "";
    this.gutter = 10 + Math.max(0, ...this.values.map(([, text]) => this.pen.measureText(text).width));
  }

  draw(gutter) {
    this.right = Math.floor(this.width - gutter);
    if (!this.values.length || this.right < 10) return;
    this.axes();
    this.pen.save();
    this.pen.beginPath();
    this.pen.rect(0, 0, this.right, this.bottom + 1);
    this.pen.clip();
    this.scene.draw(this);
    this.pen.restore();
    this.point();
  }

  axes() {
    const { pen, width, height, values } = this;
    pen.strokeStyle = this.color("line");
    pen.fillStyle = this.color("muted");
    pen.textBaseline = "middle";
    for (const [value, text] of values) {
      const y = Math.round(this.y(value)) + 0.5;
      this.line([[0, y], [this.right, y]]);
      pen.fillText(text, this.right + 6, y);
    }
    pen.textBaseline = "alphabetic";
    pen.textAlign = "center";
    for (const [time, text] of timeTicks(this.view.from, this.view.to, Math.max(2, this.right / 85))) {
      const x = Math.round(this.x(time)) + 0.5;
      this.line([[x, this.top], [x, this.bottom]]);
      const half = pen.measureText(text).width / 2;
      pen.fillText(text, Math.min(Math.max(x, half), width - half), height - 5);
    }
    pen.textAlign = "left";
  }

  line(points) {
    this.pen.beginPath();
    for (const [x, y] of points) this.pen.lineTo(x, y);
    this.pen.stroke();
  }

  /** A line through the values in view, each so much `later`; null is a gap. */
  curve(times, values, later, color, { width = 1.5, dash = [] } = {}) {
    const { pen } = this, [first, end] = inView(times, this.view);
    pen.strokeStyle = color;
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.setLineDash(dash);
    pen.beginPath();
    let drawing = false;
    for (let place = first; place < end; place++) {
      if (values[place] === null) { drawing = false; continue; }
      const x = this.x(times[place] + later), y = this.y(values[place]);
      if (drawing) pen.lineTo(x, y); else pen.moveTo(x, y);
      drawing = true;
    }
    pen.stroke();
    pen.setLineDash([]);
  }

  /** What follows the pointer: a line in all charts, and in its own what is there. */
  point() {
    const { pen, view } = this;
    if (view.cursor === null) return;
    const x = Math.round(this.x(view.cursor)) + 0.5;
    pen.strokeStyle = this.color("muted");
    pen.lineWidth = 1;
    this.line([[x, this.top], [x, this.bottom]]);
    this.caption.textContent = this.scene.told(view.cursor);
    if (!this.pointer) return;
    if (this.grip !== null) {
      pen.fillStyle = this.color("range");
      pen.fillRect(this.grip, this.top, this.pointer[0] - this.grip, this.bottom - this.top);
      return;
    }
    const lines = this.scene.tip && this.scene.tip(this, ...this.pointer);
    if (lines) this.box(lines);
  }

  box(lines) {
    const [x, y] = this.pointer, { tip, canvas } = this;
    tip.textContent = lines.join("\n");
    tip.hidden = false;
    const left = x + 14 + tip.offsetWidth > canvas.clientWidth ? x - 14 - tip.offsetWidth : x + 14;
    tip.style.left = `${Math.max(0, left)}px`;
    tip.style.top = `${canvas.offsetTop + Math.max(0, Math.min(y, this.bottom - tip.offsetHeight))}px`;
  }
}
