"use strict";
// The page: what is chosen, the charts of it, and the list of its trades.

const ROWS = 50;
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** Times come as the first one and the steps to the next ones. */
function times(steps) {
  const found = new Float64Array(steps.length);
  let time = 0;
  for (let place = 0; place < steps.length; place++) found[place] = time += steps[place];
  return found;
}

data.hold.t = times(data.hold.t);
for (const points of data.prices) points.t = times(points.t);
for (const strategy of data.strategies) {
  strategy.curve.t = times(strategy.curve.t);
  strategy.fills.t = times(strategy.fills.t);
  strategy.trades.opened = times(strategy.trades.opened);
  strategy.trades.closed = times(strategy.trades.closed);
}

const chosen = { strategy: 0, symbol: 0 };
const view = new View(data.from, data.to);
const charts = Object.fromEntries(["price", "equity", "drawdown"].map((name) => [name, new Chart(byId(name), view)]));

function of(fills, symbol) {
  const places = [];
  for (let place = 0; place < fills.t.length; place++) if (fills.symbol[place] === symbol) places.push(place);
  const take = (values) => places.map((place) => values[place]);
  const { t, buy, price, quantity, pnl } = fills;
  return { t: take(t), buy: take(buy), price: take(price), quantity: take(quantity), pnl: take(pnl) };
}

function marked(strategy) {
  return (count, marks) => {
    const told = [];
    if (strategy.fills.left_out) told.push(`The oldest ${strategy.fills.left_out.toLocaleString("en-US")} fills are not marked.`);
    if (marks < count) told.push(`${count.toLocaleString("en-US")} fills in view share ${marks} marks: zoom in to see each.`);
    byId("marked").textContent = told.join(" ");
  };
}

function drawPrice() {
  const strategy = data.strategies[chosen.strategy], points = data.prices[chosen.symbol];
  byId("price-name").textContent = data.symbols[chosen.symbol];
  byId("thinned").textContent = points.note;
  charts.price.scene = new PriceScene(points, of(strategy.fills, chosen.symbol), marked(strategy));
  view.redraw();
}

function drawCurves() {
  const { name, curve } = data.strategies[chosen.strategy];
  const others = data.strategies.filter((_, place) => place !== chosen.strategy).map((other) => (
    { name: other.name, t: other.curve.t, v: other.curve.equity, color: "other", width: 1 }
  ));
  const mine = { name: "equity", t: curve.t, v: curve.equity, color: "accent", width: 1.8 };
  const held = data.hold.worth.map((worth) => worth * curve.equity[0]);
  const hold = { name: "buy and hold", t: data.hold.t, v: held, color: "hold", width: 1.3, dash: [5, 4] };
  charts.equity.scene = new LineScene([mine, hold, ...others], money);
  const fall = { name: "drawdown", t: curve.t, v: curve.drawdown_percent, color: "down", width: 1.2 };
  charts.drawdown.scene = new LineScene([fall], (value) => `${hundredths(value)}%`, "%");
  byId("equity-name").textContent = data.strategies.length > 1 ? name : "Equity";
  view.redraw();
}

function choose(strategy) {
  chosen.strategy = strategy;
  for (const part of document.querySelectorAll("[data-strategy]")) part.hidden = Number(part.dataset.strategy) !== strategy;
  for (const row of document.querySelectorAll("[data-choose]")) row.classList.toggle("chosen", Number(row.dataset.choose) === strategy);
  if (byId("strategy")) byId("strategy").value = strategy;
  drawPrice();
  drawCurves();
  list.of(strategy);
}

function show(symbol) {
  chosen.symbol = symbol;
  if (byId("symbol")) byId("symbol").value = symbol;
  drawPrice();
}

const DIGITS = { quantity: amount, entry: price, exit: price, fees: money, profit: money, ratio: percent };
const COLUMNS = ["number", "symbol", "side", "opened", "closed", "duration", ...Object.keys(DIGITS), "reason"];

function duration(ms) {
  const parts = [["d", DAY], ["h", HOUR], ["m", MINUTE], ["s", SECOND]];
  const place = parts.findIndex(([, size]) => ms >= size);
  if (place < 0) return `${Math.round(ms)}ms`;
  const [unit, size] = parts[place], [small, part] = parts[place + 1] || ["", 1];
  const rest = small ? Math.floor(ms % size / part) : 0;
  return `${Math.floor(ms / size)}${unit}${rest ? ` ${rest}${small}` : ""}`;
}

/** The trades of a strategy: filtered by symbol, sorted by a column, a page at a time. */
const list = {
  trades: null, rows: [], page: 0, column: "number", falling: false,

  of(strategy) {
    this.trades = data.strategies[strategy].trades;
    const older = this.trades.left_out, newer = this.trades.opened.length;
    byId("left-out").textContent = older
      ? `The newest ${newer.toLocaleString("en-US")} of ${(older + newer).toLocaleString("en-US")} trades; --json prints all of them.` : "";
    this.page = 0;
    this.fill();
  },
  value(column, row) {
    const { trades } = this;
    switch (column) {
      case "number": return row;
      case "symbol": return data.symbols[trades.symbol[row]];
      case "side": return trades.short[row] ? "short" : "long";
      case "duration": return trades.closed[row] - trades.opened[row];
      case "reason": return data.reasons[trades.reason[row]];
      default: return trades[column][row];
    }
  },
  fill() {
    const wanted = byId("trades-of") ? Number(byId("trades-of").value) : -1;
    const rows = [];
    for (let row = 0; row < this.trades.opened.length; row++)
      if (wanted < 0 || this.trades.symbol[row] === wanted) rows.push(row);
    const keys = new Map(rows.map((row) => [row, this.value(this.column, row)]));
    const sign = this.falling ? -1 : 1;
    rows.sort((one, other) => {
      const [first, second] = [keys.get(one), keys.get(other)];
      return first === second ? one - other : (first < second ? -sign : sign);
    });
    this.rows = rows;
    this.turn(0);
  },
  turn(page) {
    const last = Math.max(0, Math.ceil(this.rows.length / ROWS) - 1);
    this.page = Math.min(Math.max(page, 0), last);
    const shown = this.rows.slice(this.page * ROWS, (this.page + 1) * ROWS);
    byId("trades").tBodies[0].replaceChildren(...shown.map((row) => this.row(row)));
    byId("page").textContent = this.rows.length
      ? `${(this.page * ROWS + 1).toLocaleString("en-US")} to ${(this.page * ROWS + shown.length).toLocaleString("en-US")} of ${this.rows.length.toLocaleString("en-US")}`
      : "no closed trades";
    for (const name of ["first", "back"]) byId(name).disabled = this.page === 0;
    for (const name of ["next", "last"]) byId(name).disabled = this.page === last;
  },
  row(row) {
    const line = document.createElement("tr");
    for (const column of COLUMNS) {
      const value = this.value(column, row), cell = line.insertCell();
      if (["symbol", "side", "reason"].includes(column)) cell.className = "left";
      if (column === "number") {
        const button = cell.appendChild(document.createElement("button"));
        button.textContent = (this.trades.left_out + row + 1).toLocaleString("en-US");
        button.title = "show it in the chart";
        button.addEventListener("click", () => this.look(row));
      } else if (column === "opened" || column === "closed") cell.textContent = brief(value);
      else if (column === "duration") cell.textContent = duration(value);
      else if (column in DIGITS) cell.textContent = DIGITS[column](value);
      else cell.textContent = value;
      if (column === "profit" || column === "ratio") cell.classList.add(value > 0 ? "up" : value < 0 ? "down" : "none");
    }
    return line;
  },
  look(row) {
    const [opened, closed, symbol, entry, exit] = ["opened", "closed", "symbol", "entry", "exit"].map((column) => this.trades[column][row]);
    const around = 4 * Math.max(closed - opened, data.prices[symbol].step);
    show(symbol);
    charts.price.scene.trade = { opened, closed, entry, exit };
    view.show(opened - around, closed + around);
    byId("price").scrollIntoView({ block: "center" });
  },
  sort(column) {
    this.falling = this.column === column && !this.falling;
    this.column = column;
    for (const head of document.querySelectorAll("#trades th")) {
      const mine = head.dataset.column === column;
      head.setAttribute("aria-sort", mine ? (this.falling ? "descending" : "ascending") : "none");
    }
    this.page = 0;
    this.fill();
  },
};

function on(id, event, act) {
  if (byId(id)) byId(id).addEventListener(event, act);
}

on("strategy", "change", (event) => choose(Number(event.target.value)));
on("symbol", "change", (event) => show(Number(event.target.value)));
on("trades-of", "change", () => list.fill());
for (const button of document.querySelectorAll("[data-choose] button"))
  button.addEventListener("click", () => choose(Number(button.closest("tr").dataset.choose)));
for (const button of document.querySelectorAll("#trades th button"))
  button.addEventListener("click", () => list.sort(button.parentElement.dataset.column));
on("closer", "click", () => view.zoom(0.5));
on("wider", "click", () => view.zoom(2));
on("earlier", "click", () => view.move(-0.5));
on("later", "click", () => view.move(0.5));
on("whole", "click", () => view.whole());
on("first", "click", () => list.turn(0));
on("back", "click", () => list.turn(list.page - 1));
on("next", "click", () => list.turn(list.page + 1));
on("last", "click", () => list.turn(Infinity));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view.redraw());
choose(0);
