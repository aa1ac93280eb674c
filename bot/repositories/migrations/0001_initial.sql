-- Money is TEXT that holds an exact decimal. Times are UTC milliseconds.

-- Prices on the tape are whole numbers of 10^-decimals; the view quotes shows them as prices. A symbol whose venue
-- moves to finer steps gets a second row, so that what was recorded keeps its meaning.
CREATE TABLE symbols (
    id INTEGER PRIMARY KEY,
    symbol TEXT NOT NULL,
    decimals INTEGER NOT NULL CHECK (decimals BETWEEN 0 AND 15),
    UNIQUE (symbol, decimals)
) STRICT;

-- The tape: every price the daemon saw, in the order it saw them (rowid). warmup = 1: history from before the poll,
-- which fills the windows and is never traded on.
CREATE TABLE ticks (
    poll INTEGER NOT NULL,
    symbol_id INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    bid INTEGER NOT NULL,
    ask INTEGER NOT NULL,
    last INTEGER NOT NULL,
    warmup INTEGER NOT NULL
) STRICT;

CREATE VIEW quotes AS
SELECT
    ticks.rowid AS id, poll, symbol, timestamp,
    bid / pow10 AS bid, ask / pow10 AS ask, last / pow10 AS last, warmup
FROM ticks JOIN (
    SELECT id AS symbol_id, symbol, CAST('1e' || decimals AS REAL) AS pow10 FROM symbols
) USING (symbol_id);

-- Every change of target, with its verdict: filled, or refused and why. The id is the number of the decision; the trade
-- that it led to has the same one.
CREATE TABLE signals (
    id INTEGER PRIMARY KEY,
    poll INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    target REAL NOT NULL,
    bid REAL NOT NULL,
    ask REAL NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT
) STRICT;

CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    signal_id INTEGER,
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    side TEXT NOT NULL,
    type TEXT NOT NULL,
    quantity TEXT NOT NULL,
    price TEXT,
    status TEXT NOT NULL,
    timestamp INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE trades (
    id INTEGER PRIMARY KEY,
    order_id TEXT NOT NULL,
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    side TEXT NOT NULL,
    price TEXT NOT NULL,
    quantity TEXT NOT NULL,
    cost TEXT NOT NULL,
    fee TEXT NOT NULL,
    fee_currency TEXT NOT NULL,
    pnl TEXT NOT NULL,
    timestamp INTEGER NOT NULL
) STRICT;

-- One row a start of the daemon, with the configuration it decided by from first_poll on.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    started_at INTEGER NOT NULL,
    first_poll INTEGER NOT NULL,
    version TEXT NOT NULL,
    config TEXT NOT NULL,
    stopped_at INTEGER,
    stop_reason TEXT
) STRICT;

-- What the rows above add up to, so that a start reads a few rows and not the whole ledger.
CREATE TABLE accounts (
    name TEXT PRIMARY KEY,
    currency TEXT NOT NULL,
    capital TEXT NOT NULL,
    cash TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE positions (
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    quantity TEXT NOT NULL,
    basis TEXT NOT NULL,
    total_buys TEXT NOT NULL,
    total_sells TEXT NOT NULL,
    target REAL NOT NULL,
    PRIMARY KEY (account, symbol)
) STRICT, WITHOUT ROWID;

-- How far the ledger is. digest is a running hash over its decisions, row by row; seed is what it came to at the last
-- whole span of rows.
CREATE TABLE cursor (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    polls INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    ticks INTEGER NOT NULL,
    decisions INTEGER NOT NULL,
    signals INTEGER NOT NULL,
    orders INTEGER NOT NULL,
    trades INTEGER NOT NULL,
    digest TEXT NOT NULL,
    seed TEXT NOT NULL
) STRICT;

INSERT INTO cursor VALUES (1, 0, 0, 0, 0, 0, 0, 0, 'cae66941d9efbd404e4d88758ea67670', '');
