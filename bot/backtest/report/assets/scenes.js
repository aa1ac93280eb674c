"use strict";
// What the charts show: prices with fills, equity, drawdown.

const CELL_PX = 8;  // Fills of one side that are closer than this share a mark.
const NEAR_PX = 16;

function money(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  const most = size >= 0.995 || size === 0 ? 2 : Math.min(12, 3 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: Math.max(2, most) });
}

function price(value) {
  if (value === null || value === undefined) return "-";
  return Math.abs(value) >= 100 ? money(value) : amount(value, 6);
}

const amount = (value, digits = 8) => value.toLocaleString("en-US", { maximumSignificantDigits: digits });
const percent = (value) => value === null ? "-" : `${hundredths(value * 100)}%`;
const hundredths = (value) => value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const moment = (time) => new Date(time).toISOString().slice(0, 19).replace("T", " ");
const brief = (time) => moment(time).slice(0, time % MINUTE ? 19 : 16);

function extent(...series) {
  let low = Infinity, high = -Infinity;
  for (const [values, first, end] of series)
    for (let place = first; place < end; place++) {
      const value = values[place];
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  return low <= high ? [low, high] : null;
}

/** `points`: t, o, h, l, c, each `step` long; `fills`: t, buy, price, quantity, pnl of this symbol, in the order of time. */
class PriceScene {
  constructor(points, fills, note) {
    Object.assign(this, { points, fills, note, marks: [], trade: null });
  }
  range(view) {
    const [first, end] = inView(this.points.t, view);
    return extent([this.points.h, first, end], [this.points.l, first, end]);
  }
  draw(chart) {
    const { points } = this, [first, end] = inView(points.t, chart.view);
    const each = chart.right / Math.max(1, end - first);
    if (each >= 5) this.candles(chart, first, end, each);
    else {
      chart.pen.strokeStyle = chart.color("other");
      chart.pen.lineWidth = Math.max(1, each);
      chart.pen.beginPath();
      const stride = Math.ceil((end - first) / (2 * chart.right));  // Two to a pixel.
      for (let place = first; place < end; place += stride) {
        const until = Math.min(place + stride, end), x = chart.x(points.t[place] + points.step / 2);
        const [low, high] = extent([points.l, place, until], [points.h, place, until]);
        chart.pen.moveTo(x, chart.y(high));
        chart.pen.lineTo(x, chart.y(low));
      }
      chart.pen.stroke();
      chart.curve(points.t, points.c, points.step / 2, chart.color("muted"), { width: 1 });
    }
    if (this.trade) this.look(chart);
    this.marks = this.grouped(chart);
    for (const mark of this.marks) this.triangle(chart, mark);
    const count = this.marks.reduce((sum, mark) => sum + mark.count, 0);
    this.note(count, this.marks.length);
  }
  candles(chart, first, end, each) {
    const { pen } = chart, { points } = this, body = Math.min(each * 0.7, 30);
    for (let place = first; place < end; place++) {
      const x = chart.x(points.t[place] + points.step / 2), open = chart.y(points.o[place]), close = chart.y(points.c[place]);
      pen.strokeStyle = pen.fillStyle = chart.color(points.c[place] >= points.o[place] ? "up" : "down");
      pen.globalAlpha = 0.55;
      pen.lineWidth = 1;
      chart.line([[x, chart.y(points.h[place])], [x, chart.y(points.l[place])]]);
      pen.fillRect(x - body / 2, Math.min(open, close), body, Math.max(1, Math.abs(open - close)));
      pen.globalAlpha = 1;
    }
  }
  /** The trade that was chosen in the list. */
  look(chart) {
    const { opened, closed, entry, exit } = this.trade;
    const { pen } = chart, from = chart.x(opened), to = chart.x(closed);
    pen.fillStyle = chart.color("range");
    pen.fillRect(from, chart.top, Math.max(2, to - from), chart.bottom - chart.top);
    pen.strokeStyle = chart.color("accent");
    pen.lineWidth = 2.5;
    chart.line([[from, chart.y(entry)], [to, chart.y(exit)]]);
  }
  /** The fills in view, those of one side that are too close to be told apart as one mark. */
  grouped(chart) {
    const { fills } = this, { view } = chart, cell = (view.to - view.from) * CELL_PX / chart.right;
    const found = new Map();
    for (let place = placeOf(fills.t, view.from - 1) + 1; place < fills.t.length && fills.t[place] <= view.to; place++) {
      const key = Math.floor(fills.t[place] / cell) * 2 + fills.buy[place];
      let mark = found.get(key);
      if (!mark) found.set(key, mark = { buy: fills.buy[place], count: 0, time: 0, cost: 0, quantity: 0, pnl: 0 });
      mark.count += 1;
      mark.time += fills.t[place];
      mark.quantity += fills.quantity[place];
      mark.cost += fills.quantity[place] * fills.price[place];
      mark.pnl += fills.pnl[place];
    }
    for (const mark of found.values()) {
      mark.time /= mark.count;
      mark.price = mark.cost / mark.quantity;
    }
    return [...found.values()];
  }
  triangle(chart, mark) {
    const { pen } = chart, size = Math.min(7, 5 + Math.log2(mark.count) / 2), down = mark.buy ? 1 : -1;
    mark.x = chart.x(mark.time);
    mark.y = chart.y(mark.price);
    pen.fillStyle = chart.color(mark.buy ? "up" : "down");
    pen.strokeStyle = chart.color("back");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(mark.x, mark.y + down);
    pen.lineTo(mark.x - size, mark.y + down * (1 + size * 1.6));
    pen.lineTo(mark.x + size, mark.y + down * (1 + size * 1.6));
    pen.closePath();
    pen.fill();
    pen.stroke();
  }
  told(time) {
    const { points } = this, place = placeOf(points.t, time);
    if (place < 0) return moment(time);
    const parts = [["open", points.o], ["high", points.h], ["low", points.l], ["close", points.c]];
    return `${moment(points.t[place])}  ${parts.map(([name, values]) => `${name} ${price(values[place])}`).join("  ")}`;
  }
  tip(chart, x, y) {
    let best = null, least = NEAR_PX;
    for (const mark of this.marks) {
      const away = Math.hypot(mark.x - x, mark.y + (mark.buy ? 6 : -6) - y);
      if (away < least) [best, least] = [mark, away];
    }
    if (!best) return null;
    const side = best.buy ? "buy" : "sell", one = best.count === 1;
    const head = one ? `${side}  ${moment(best.time)}` : `${best.count.toLocaleString("en-US")} fills: ${side}`;
    const lines = [head, `${one ? "price" : "average price"} ${price(best.price)}`, `quantity ${amount(best.quantity)}`];
    return best.pnl ? [...lines, `pnl ${money(best.pnl)} before fees`] : lines;
  }
}

/** `lines`: {name, t, v, color, width, dash}, the first one is the one that matters most; percents hang from zero. */
class LineScene {
  constructor(lines, format, unit = "") {
    Object.assign(this, { lines, format, unit, hangs: unit === "%" });
  }
  range(view) {
    const found = extent(...this.lines.map((line) => [line.v, ...inView(line.t, view)]));
    return found && this.hangs ? [Math.min(found[0], -0.01), 0] : found;
  }
  draw(chart) {
    if (this.hangs) this.area(chart);
    for (const line of [...this.lines].reverse()) chart.curve(line.t, line.v, 0, chart.color(line.color), line);
  }
  area(chart) {
    const { pen } = chart, [{ t, v, color }] = this.lines, [first, end] = inView(t, chart.view);
    pen.fillStyle = chart.color(color);
    pen.globalAlpha = 0.25;
    pen.beginPath();
    pen.moveTo(chart.x(t[first]), chart.y(0));
    for (let place = first; place < end; place++) pen.lineTo(chart.x(t[place]), chart.y(v[place]));
    pen.lineTo(chart.x(t[end - 1]), chart.y(0));
    pen.fill();
    pen.globalAlpha = 1;
  }
  told(time) {
    const told = this.lines.filter((line) => line.color !== "other").map((line) => {
      const place = placeOf(line.t, time);
      return `${line.name} ${place < 0 ? "-" : this.format(line.v[place])}`;
    });
    return `${moment(time)}  ${told.join("  ")}`;
  }
}
