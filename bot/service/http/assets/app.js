"use strict";
// Follows the daemon by server-sent events. What it says is shown as text, never as markup.

const ROWS = 15, FEED_ROWS = 60, POINTS = 300;
const AGAIN_MS = 2000, ASKED_AGAIN_MS = 5 * 60 * 1000;
// The daemon speaks every five seconds even when nothing happens.
const SILENT_MS = 15000;
const byId = (id) => document.getElementById(id);
const now = { state: null, heard: 0, lost: true, since: performance.now(), stream: null, shown: {} };
const past = { times: [], values: {}, step: 0, asked: 0, hours: "", number: 0 };
const chart = new LineChart(byId("chart"));

const whole = (value) => value.toLocaleString("en-US");
const fixed = (value, digits) => value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const money = (value) => (value === null ? "-" : fixed(value, 2));
const cents = (value) => Math.round(value * 100) / 100 || 0;
const signed = (value) => (value === null ? "-" : (cents(value) > 0 ? "+" : "") + fixed(cents(value), 2));
const price = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 10 });
const amount = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 8 });
const tone = (value) => (cents(value) > 0 ? "up" : cents(value) < 0 ? "down" : "");

function span(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const place = Math.max(0, parts.findIndex(([, size]) => seconds >= size));
  const [unit, size] = seconds < 1 ? parts[3] : parts[place];
  if (unit === "s") return `${seconds < 10 ? fixed(Math.max(0, seconds), 1) : Math.round(seconds)} s`;
  const [small, part] = parts[place + 1], rest = Math.floor(seconds % size / part);
  return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${small}` : ""}`;
}

/** Only the cells that changed are touched: what is selected or read aloud stays. */
function fill(id, rows, none) {
  const body = byId(id).tBodies[0], heads = [...byId(id).tHead.rows[0].cells];
  if (!rows.length) {
    if (body.dataset.none === none) return;
    body.dataset.none = none;
    const cell = document.createElement("td");
    cell.colSpan = heads.length;
    cell.className = "none";
    cell.textContent = none;
    const line = document.createElement("tr");
    line.append(cell);
    body.replaceChildren(line);
    return;
  }
  if (body.dataset.none !== undefined) {
    delete body.dataset.none;
    body.replaceChildren();
  }
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, number) => {
    const line = body.rows[number] || body.insertRow();
    cells.forEach(([text, kind = ""], place) => {
      const cell = line.cells[place] || line.insertCell();
      const extra = heads[place].classList.contains("extra") ? " extra" : "";
      if (cell.textContent !== text) cell.textContent = text;
      if (cell.className !== kind + extra) cell.className = kind + extra;
    });
  });
}

function put(id, text, kind) {
  const part = byId(id);
  if (part.textContent !== text) part.textContent = text;
  if (kind !== undefined && part.className !== kind) part.className = kind;
}

function showAccounts({ accounts }) {
  fill("accounts", accounts.map((account) => {
    const { profit, capital } = account, part = profit === null ? "" : `${signed(100 * profit / capital)}%`;
    return [
      [account.account, "name"], [account.strategy || "-", "name"], [money(capital)], [money(account.cash)],
      [`${money(account.equity)} ${account.currency}`], [signed(profit), tone(profit)], [part, tone(profit)],
    ];
  }), "no account yet");
  const held = accounts.flatMap(({ account, positions }) => positions.map((position) => ({ account, ...position })));
  fill("positions", held.map((position) => [
    [position.account, "name"], [position.symbol, "left"], [amount(position.quantity)], [price(position.average_price)],
    [position.price === null ? "-" : price(position.price)], [money(position.value)],
    [signed(position.unrealised_pnl), tone(position.unrealised_pnl)],
  ]), "none: everything is cash");
}

function showFeed({ feed }, older) {
  const limit = now.state.stale_after_s, aged = feed.map((each) => ({ ...each, age: each.age_s === null ? null : each.age_s + older }));
  const stale = (each) => each.age === null || each.age > limit;
  aged.sort((one, other) => stale(other) - stale(one));
  fill("feed", aged.slice(0, FEED_ROWS).map((each) => [
    [each.symbol, "left"], [each.price === null ? "-" : price(each.price)], [each.age === null ? "-" : span(each.age)],
    each.price === null ? ["no price yet", "left warn"] : stale(each) ? ["stale", "left down"] : ["fresh", "left up"],
  ]), "no symbols");
  put("more", aged.length > FEED_ROWS ? `and ${whole(aged.length - FEED_ROWS)} more, none of them staler` : "");
}

function showFacts(state, older) {
  const facts = [
    ["polls", whole(state.polls)], ["ticks", whole(state.ticks)], ["signals", whole(state.signals)], ["trades", whole(state.trades)],
    ["running for", span(state.uptime_s + older)],
  ];
  if (state.outage_s !== null) facts.push(["no prices for", span(state.outage_s + older)]);
  const counts = { ...state.feed_counts, ...state.clock_events };
  for (const [kind, count] of Object.entries(state.interruptions)) counts[`interrupted: ${kind}`] = count;
  for (const [reason, count] of Object.entries(state.refusals)) counts[`signals refused: ${reason}`] = count;
  for (const [name, count] of Object.entries(counts)) if (count) facts.push([name.replaceAll("_", " "), whole(count)]);
  if (state.loop) facts.push(["loop lag", `${fixed(state.loop.lag_s * 1000, 1)} ms`]);
  if (state.loop && state.loop.blocked) facts.push(["loop blocked", whole(state.loop.blocked)]);
  if (state.last_trouble) facts.push(["last trouble", `${moment(Date.parse(state.last_trouble.at))} ${state.last_trouble.error}`]);
  facts.push(["ledger", state.ledger], ["digest", state.digest || "-"], ["version", state.version]);
  const list = byId("facts");
  while (list.children.length > facts.length) list.lastChild.remove();
  facts.forEach(([name, text], place) => {
    const line = list.children[place] || list.appendChild(document.createElement("div"));
    if (!line.children.length) line.append(document.createElement("dt"), document.createElement("dd"));
    if (line.firstChild.textContent !== name) line.firstChild.textContent = name;
    if (line.lastChild.textContent !== text) line.lastChild.textContent = text;
  });
}

function moment(time) {
  const text = new Date(time).toISOString();
  return text.slice(0, 10) === new Date().toISOString().slice(0, 10) ? text.slice(11, 19) : `${day(time)} ${text.slice(11, 19)}`;
}

/** What changes with time alone: ages, and whether anybody is still there. */
function tick() {
  const { state } = now;
  if (!now.lost && performance.now() - now.heard > SILENT_MS) lose();
  const older = (performance.now() - now.heard) / 1000;
  document.body.classList.toggle("lost", now.lost && state !== null);
  let notice = "";
  if (now.lost) {
    const away = span((performance.now() - now.since) / 1000);
    put("health", state ? "connection lost" : "connecting", state ? "pill down" : "pill");
    notice = state ? `No connection to the daemon for ${away}. What is below is from before that; trying again.` : "";
  }
  if (state) {
    const { health } = state, age = health.age_s === null ? null : health.age_s + older;
    const alive = health.alive && age <= state.stale_after_s;
    if (!now.lost) put("health", alive ? "alive" : "not alive", alive ? "pill up" : "pill down");
    put("age", age === null ? "no prices yet" : `prices ${span(age)} old`, "muted");
    if (!now.lost && !alive) notice = health.reason || `no prices for ${span(age)}`;
    if (!now.lost && state.outage_s !== null && state.last_trouble) notice = `${notice || "No prices"}: ${state.last_trouble.error}`;
    showFeed(state, older);
    showFacts(state, older);
  }
  put("notice", notice);
  byId("notice").hidden = !notice;
}

function take(state) {
  const before = now.state;
  Object.assign(now, { state, heard: performance.now(), lost: false });
  if (before && before.started_at !== state.started_at) past.asked = 0;
  showAccounts(state);
  tick();
  offer(state.accounts.map((account) => account.account));
  lengthen(state);
  if (now.shown.trades !== state.trades) refresh("trades", state.trades, showTrades);
  if (now.shown.signals !== state.signals) refresh("signals", state.signals, showSignals);
  if (performance.now() - past.asked > ASKED_AGAIN_MS || !past.asked) askPast();
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(30000) });
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.error);
  return document;
}

/** Asks once at a time; a count that moved on meanwhile is asked for at the next state. */
async function refresh(name, count, show) {
  if (now.shown[`${name} asked`]) return;
  now.shown[`${name} asked`] = true;
  try {
    show(await ask(`api/${name}?limit=${ROWS}`));
    now.shown[name] = count;
  } catch {
    // The next state asks again.
  } finally {
    now.shown[`${name} asked`] = false;
  }
}

function showTrades(trades) {
  fill("trades", trades.reverse().map((trade) => [
    [moment(trade.timestamp), "left"], [trade.account, "name"], [trade.side, "left"], [trade.symbol, "left"],
    [amount(trade.quantity)], [price(trade.price)], [money(trade.fee)], [signed(trade.pnl), tone(trade.pnl)],
  ]), "no trades yet");
}

function showSignals(signals) {
  const targets = { "1": "long", "0": "flat", "-1": "short" };
  fill("signals", signals.reverse().map((signal) => {
    const filled = signal.verdict === "filled";
    const why = signal.reason_text ? `${signal.reason_text} (${signal.reason})` : signal.reason;
    return [
      [moment(signal.timestamp), "left"], [signal.account, "name"], [signal.symbol, "left"],
      [targets[signal.target] || String(signal.target), "left"],
      filled ? [signal.verdict, "words muted"] : [`${signal.verdict}: ${why}`, "words warn"],
    ];
  }), "no signals yet");
}

async function askPast() {
  const hours = byId("hours").value, number = ++past.number;
  past.asked = performance.now();
  try {
    const found = await ask(`api/equity?points=${POINTS}&hours=${hours}`);
    if (number !== past.number) return;
    const times = found.timestamps;
    Object.assign(past, { times, values: found.accounts, step: times.length > 1 ? times[1] - times[0] : 1000 });
    const deleted = found.ticks_deleted && hours === "all" ? " Older prices are not kept any more." : "";
    put("past", times.length ? deleted.trim() : "There are no recorded prices to value the past with: the chart begins now.");
    if (now.state) lengthen(now.state);
  } catch {
    past.asked = performance.now() - ASKED_AGAIN_MS + 10000;
  }
}

/** The newest state as the curve's last point: a new one if the last one has lasted as long as the others. */
function lengthen(state) {
  const time = Date.parse(state.last_price_at), count = past.times.length;
  if (!state.last_price_at || !past.asked) return;
  const renew = count > 1 && time - past.times[count - 2] < Math.max(past.step, 1000) && time >= past.times[count - 1];
  if (count && time < past.times[count - 1]) return draw();
  if (!renew) past.times.push(time);
  const last = past.times.length - 1;
  past.times[last] = time;
  for (const { account, equity } of state.accounts) {
    const values = past.values[account] || (past.values[account] = []);
    while (values.length < last) values.push(null);
    values[last] = equity;
  }
  for (const values of Object.values(past.values)) while (values.length <= last) values.push(values.length ? values[values.length - 1] : null);
  if (past.times.length > 3 * POINTS) past.asked = 0;
  draw();
}

function draw() {
  if (!now.state) return;
  const chosen = byId("account").value, accounts = now.state.accounts.filter((account) => !chosen || account.account === chosen);
  const alone = accounts.length === 1;
  put("unit", alone ? accounts[0].currency : "profit in % of the capital");
  const lines = accounts.map(({ account, capital }) => {
    const values = past.values[account] || [];
    return { name: account, values: alone ? values : values.map((value) => (value === null ? null : 100 * (value / capital - 1))) };
  });
  chart.show(past.times, lines, alone ? fixed : (value, digits) => `${fixed(value, digits)}%`);
}

function offer(names) {
  const select = byId("account"), known = [...select.options].slice(1).map((option) => option.value);
  if (JSON.stringify(known) === JSON.stringify(names)) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => new Option(name, name)));
  select.value = names.includes(chosen) ? chosen : "";
}

function lose() {
  if (!now.lost) Object.assign(now, { lost: true, since: performance.now() });
  if (now.stream) now.stream.close();
  now.stream = null;
  setTimeout(follow, AGAIN_MS);
}

function follow() {
  if (now.stream) return;
  const stream = now.stream = new EventSource("api/events");
  stream.addEventListener("message", (event) => take(JSON.parse(event.data)));
  stream.addEventListener("error", () => {
    if (now.stream !== stream) return;
    lose();
    tick();
  });
}

byId("hours").addEventListener("change", askPast);
byId("account").addEventListener("change", draw);
setInterval(tick, 500);
follow();
