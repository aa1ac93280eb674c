"use strict";
// Lines over time on one canvas, with what they come to at the pointer. All times are UTC milliseconds.

const SECOND = 1e3, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const STEPS = [1, 2, 5, 10, 15, 30].map((seconds) => seconds * SECOND)
  .concat([1, 2, 5, 10, 15, 30].map((minutes) => minutes * MINUTE))
  .concat([1, 2, 3, 6, 12].map((hours) => hours * HOUR), [1, 2, 7, 14, 30, 60, 120, 365].map((days) => days * DAY));
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const TIP_LINES = 12;

function day(time) {
  const date = new Date(time);
  return `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}`;
}

function clockTime(time, step = SECOND) {
  return new Date(time).toISOString().slice(11, step < MINUTE ? 19 : 16);
}

/** A step of 1, 2 or 5 times a power of ten that makes no more than `count` parts, and the decimals that it needs. */
function stepOf(span, count) {
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].find((factor) => factor * power * count >= span * 0.999) * power;
  return [step, Math.min(Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)), 12)];
}

class LineChart {
  /** `format` makes a text of a value. */
  constructor(figure) {
    this.canvas = figure.querySelector("canvas");
    this.box = figure.querySelector(".tip");
    this.legend = figure.querySelector("figcaption");
    this.pen = this.canvas.getContext("2d");
    Object.assign(this, { times: [], lines: [], format: String, place: null, waiting: false });
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.canvas.addEventListener("pointermove", (event) => this.point(this.nearest(event.offsetX)));
    this.canvas.addEventListener("pointerdown", (event) => this.point(this.nearest(event.offsetX)));
    for (const leaving of ["pointerleave", "blur"]) this.canvas.addEventListener(leaving, () => this.point(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** `lines` are {name, values}, values as many as times, null where there is none. */
  show(times, lines, format) {
    Object.assign(this, { times, lines, format });
    if (this.place !== null && this.place >= times.length) this.place = null;
    const names = lines.map((line) => line.name);
    if (JSON.stringify(names) !== this.named) {
      this.named = JSON.stringify(names);
      this.legend.replaceChildren(...names.map((name, place) => this.text("span", name, place)));
    }
    this.redraw();
  }

  text(kind, text, place) {
    const part = document.createElement(kind);
    part.textContent = text;
    if (place !== undefined) part.className = `key k${place % 8}`;
    return part;
  }

  key(event) {
    const last = this.times.length - 1, from = this.place ?? last;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last, Escape: null }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.point(to === null ? null : Math.min(Math.max(to, 0), last));
  }

  point(place) {
    this.place = place;
    this.redraw();
  }

  nearest(x) {
    if (!this.times.length || !this.x) return null;
    let low = 0, high = this.times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.x(this.times[middle]) < x) low = middle + 1; else high = middle;
    }
    const before = Math.max(0, low - 1);
    return Math.abs(this.x(this.times[before]) - x) < Math.abs(this.x(this.times[low]) - x) ? before : low;
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  color(name) {
    return this.styles.getPropertyValue(`--${name}`);
  }

  draw() {
    const { canvas, pen, times } = this, width = canvas.clientWidth, height = canvas.clientHeight;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    this.styles = getComputedStyle(canvas);
    pen.font = `12px ${this.styles.fontFamily}`;
    const known = this.lines.flatMap((line) => line.values).filter((value) => value !== null);
    if (!known.length) {
      this.x = null;
      this.tell();
      return;
    }
    this.measure(known, width, height);
    this.grid(width, height);
    this.lines.forEach((line, place) => this.curve(line.values, this.color(`c${place % 8}`)));
    if (this.place !== null && times.length) this.cursor(height);
    this.tell();
  }

  measure(known, width, height) {
    let low = Infinity, high = -Infinity;
    for (const value of known) [low, high] = [Math.min(low, value), Math.max(high, value)];
    const least = Math.max(Math.abs(high), 1) * 1e-6, room = Math.max((high - low) * 0.08, least);
    [low, high] = [low - room, high + room];
    const [step, decimals] = stepOf(high - low, Math.max(2, Math.floor(height / 55)));
    this.values = [];
    for (let number = Math.ceil(low / step); number * step <= high; number++)
      this.values.push([number * step, this.format(number * step, decimals)]);
    const left = Math.max(...this.values.map(([, text]) => this.pen.measureText(text).width), 20) + 10;
    const bottom = height - 22, top = 6, right = width - 8;
    const first = this.times[0], span = Math.max(this.times[this.times.length - 1] - first, SECOND);
    this.x = (time) => left + (time - first) / span * (right - left);
    this.y = (value) => bottom - (value - low) / (high - low) * (bottom - top);
    Object.assign(this, { left, right, bottom, top, first, span });
  }

  grid() {
    const { pen } = this;
    pen.lineWidth = 1;
    pen.strokeStyle = this.color("line");
    pen.fillStyle = this.color("muted");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const [value, text] of this.values) {
      const y = Math.round(this.y(value)) + 0.5;
      this.stroke([[this.left, y], [this.right, y]]);
      pen.fillText(text, this.left - 8, y);
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const count = Math.max(2, Math.floor((this.right - this.left) / 90));
    const step = STEPS.find((each) => this.span / each <= count) || STEPS[STEPS.length - 1];
    for (let time = Math.ceil(this.first / step) * step; time <= this.first + this.span; time += step) {
      const text = step >= DAY || time % DAY === 0 ? day(time) : clockTime(time, step);
      const half = pen.measureText(text).width / 2;
      if (this.x(time) + half <= this.right + 8 && this.x(time) - half >= 0) pen.fillText(text, this.x(time), this.bottom + 7);
    }
  }

  curve(values, color) {
    const { pen } = this;
    pen.strokeStyle = pen.fillStyle = color;
    pen.lineWidth = 1.8;
    pen.lineJoin = "round";
    let part = [];
    const end = () => {
      if (part.length === 1) pen.fillRect(part[0][0] - 1.5, part[0][1] - 1.5, 3, 3);
      this.stroke(part);
      part = [];
    };
    values.forEach((value, place) => {
      if (value === null) end();
      else part.push([this.x(this.times[place]), this.y(value)]);
    });
    end();
  }

  stroke(points) {
    this.pen.beginPath();
    for (const [x, y] of points) this.pen.lineTo(x, y);
    this.pen.stroke();
  }

  cursor() {
    const { pen } = this, x = this.x(this.times[this.place]);
    pen.strokeStyle = this.color("muted");
    pen.lineWidth = 1;
    this.stroke([[x, this.top], [x, this.bottom]]);
    this.lines.forEach((line, place) => {
      const value = line.values[this.place];
      if (value === null) return;
      pen.fillStyle = this.color(`c${place % 8}`);
      pen.beginPath();
      pen.arc(x, this.y(value), 3.5, 0, 2 * Math.PI);
      pen.fill();
    });
  }

  /** The box beside the pointer, the greatest value first. */
  tell() {
    this.box.hidden = this.place === null || !this.x;
    if (this.box.hidden) return;
    const time = this.times[this.place], x = this.x(time), there = x < (this.left + this.right) / 2;
    const found = this.lines.map((line, place) => ({ name: line.name, place, value: line.values[this.place] }));
    found.sort((one, other) => (other.value ?? -Infinity) - (one.value ?? -Infinity));
    const told = found.slice(0, TIP_LINES).map(({ name, place, value }) => (
      this.text("p", `${name}  ${value === null ? "-" : this.format(value, 2)}`, place)
    ));
    this.box.replaceChildren(this.text("p", `${day(time)} ${clockTime(time)}`), ...told);
    this.box.style.left = there ? `${x + 12}px` : "auto";
    this.box.style.right = there ? "auto" : `${this.canvas.clientWidth - x + 12}px`;
  }
}
