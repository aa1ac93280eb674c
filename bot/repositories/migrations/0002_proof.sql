-- Rows of the tape get an id of their own: old ones are deleted, and what SQLite numbers by itself it may number anew.
DROP VIEW quotes;

ALTER TABLE ticks RENAME TO ticks_before;

CREATE TABLE ticks (
    id INTEGER PRIMARY KEY,
    poll INTEGER NOT NULL,
    symbol_id INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    bid INTEGER NOT NULL,
    ask INTEGER NOT NULL,
    last INTEGER NOT NULL,
    warmup INTEGER NOT NULL
) STRICT;

INSERT INTO ticks
SELECT rowid, poll, symbol_id, timestamp, bid, ask, last, warmup FROM ticks_before ORDER BY rowid;

DROP TABLE ticks_before;

CREATE VIEW quotes AS
SELECT
    ticks.id AS id, poll, symbol, timestamp,
    bid / pow10 AS bid, ask / pow10 AS ask, last / pow10 AS last, warmup
FROM ticks JOIN (
    SELECT id AS symbol_id, symbol, CAST('1e' || decimals AS REAL) AS pow10 FROM symbols
) USING (symbol_id);

-- No tick of a symbol is older than this one: a search for its last ones need not go on to the start of the tape.
ALTER TABLE symbols ADD COLUMN first_tick INTEGER NOT NULL DEFAULT 1;

-- tape_digest and tape_seed are for the ticks what digest and seed are for the decisions. The tape is whole from the
-- seal base on (0: from its first tick); kept is a hash over the older ticks that the windows still need. checksum is a
-- hash over this row and the tables symbols and runs.
ALTER TABLE cursor ADD COLUMN tape_digest TEXT NOT NULL DEFAULT 'cae66941d9efbd404e4d88758ea67670';
ALTER TABLE cursor ADD COLUMN tape_seed TEXT NOT NULL DEFAULT '';
ALTER TABLE cursor ADD COLUMN base INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursor ADD COLUMN kept TEXT NOT NULL DEFAULT '';
ALTER TABLE cursor ADD COLUMN checksum TEXT NOT NULL DEFAULT '';

-- Now and then, all that the rows so far come to: a start adds up what follows the last one, and an old tape may be
-- deleted up to one.
CREATE TABLE seals (
    id INTEGER PRIMARY KEY,
    polls INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    ticks INTEGER NOT NULL,
    decisions INTEGER NOT NULL,
    signals INTEGER NOT NULL,
    orders INTEGER NOT NULL,
    trades INTEGER NOT NULL,
    digest TEXT NOT NULL,
    seed TEXT NOT NULL,
    tape_digest TEXT NOT NULL,
    tape_seed TEXT NOT NULL
) STRICT;

CREATE TABLE sealed_accounts (
    seal INTEGER NOT NULL,
    name TEXT NOT NULL,
    currency TEXT NOT NULL,
    capital TEXT NOT NULL,
    cash TEXT NOT NULL,
    PRIMARY KEY (seal, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE sealed_positions (
    seal INTEGER NOT NULL,
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    quantity TEXT NOT NULL,
    basis TEXT NOT NULL,
    total_buys TEXT NOT NULL,
    total_sells TEXT NOT NULL,
    target REAL NOT NULL,
    PRIMARY KEY (seal, account, symbol)
) STRICT, WITHOUT ROWID;
