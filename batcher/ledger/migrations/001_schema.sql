-- Version 1 of the ledger. Times are seconds since 1970 UTC, money is USD, JSON is text.
-- Each CHECK repeats a promise, so that no defect above can break it on disk.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL                      -- JSON
) STRICT, WITHOUT ROWID;

CREATE TABLE models (
  id    TEXT PRIMARY KEY,
  entry TEXT NOT NULL                      -- as the catalogue had it when it was first asked
) STRICT, WITHOUT ROWID;

CREATE TABLE images (
  path     TEXT PRIMARY KEY,               -- what a local image was, so that an unchanged file is not read again
  size     INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  facts    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
  id            TEXT NOT NULL,             -- of older ledgers the primary key, which comes to the same
  position      INTEGER NOT NULL,          -- order in the manifest
  listed        INTEGER NOT NULL DEFAULT 1 CHECK (listed IN (0, 1)),     -- the manifest names it
  selected      INTEGER NOT NULL DEFAULT 1 CHECK (selected IN (0, 1)),   -- this run works on it
  name          TEXT NOT NULL,
  spec          TEXT NOT NULL,             -- model, inputs, images, sources, vars, row
  sample        INTEGER NOT NULL,
  estimated_usd REAL,
  state         TEXT NOT NULL CHECK (state IN
    ('pending', 'submitting', 'running', 'fetching', 'done', 'failed', 'uncertain', 'cancelled')),
  kind          TEXT,
  message       TEXT,
  attempt       INTEGER NOT NULL DEFAULT 0,
  request_id    TEXT,
  not_before    REAL NOT NULL DEFAULT 0,
  created_at    REAL NOT NULL,
  submitted_at  REAL,
  running_since REAL,
  completed_at  REAL,
  settled_at    REAL,
  CHECK (state NOT IN ('running', 'fetching') OR request_id IS NOT NULL),
  CHECK ((state IN ('failed', 'uncertain')) = (kind IS NOT NULL)),
  CHECK ((state IN ('done', 'failed', 'uncertain', 'cancelled')) = (settled_at IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX jobs_by_id ON jobs (id);
CREATE INDEX jobs_waiting ON jobs (position) WHERE state = 'pending' AND listed = 1 AND selected = 1;
CREATE INDEX jobs_by_state ON jobs (state, listed, selected, kind);
CREATE INDEX jobs_by_name ON jobs (name);

CREATE TABLE attempts (
  job_id        TEXT NOT NULL REFERENCES jobs (id),
  number        INTEGER NOT NULL,          -- from 1
  request_id    TEXT,
  submitted_at  REAL NOT NULL,
  accepted_at   REAL,
  ended_at      REAL,
  outcome       TEXT NOT NULL CHECK (outcome IN
    ('open', 'turned_away', 'refused', 'uncertain', 'done', 'failed', 'cancelled')),
  estimated_usd REAL,
  billed_usd    REAL,
  evidence      TEXT,                      -- what was seen on the wire
  PRIMARY KEY (job_id, number),
  CHECK (outcome NOT IN ('turned_away', 'refused') OR request_id IS NULL)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX attempts_by_request ON attempts (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX attempts_money ON attempts (outcome, estimated_usd, billed_usd);

-- A request id, once known, is never changed: it is the only key to what was paid for.
CREATE TRIGGER request_id_stays BEFORE UPDATE OF request_id ON attempts
WHEN OLD.request_id IS NOT NULL AND NEW.request_id IS NOT OLD.request_id
BEGIN SELECT RAISE(ABORT, 'an attempt''s request id is never overwritten'); END;

CREATE TABLE outputs (
  job_id        TEXT NOT NULL REFERENCES jobs (id),
  number        INTEGER NOT NULL,          -- of the attempt
  idx           INTEGER NOT NULL,          -- from 1
  url           TEXT NOT NULL,             -- a data: URI stands as its digest
  file          TEXT,                      -- relative to the run directory, once it is whole
  bytes         INTEGER,
  sha256        TEXT,
  mime          TEXT,
  width         INTEGER,
  height        INTEGER,
  downloaded_at REAL,
  PRIMARY KEY (job_id, number, idx)
) STRICT, WITHOUT ROWID;

CREATE INDEX outputs_by_file ON outputs (file) WHERE file IS NOT NULL;

CREATE TABLE events (
  seq    INTEGER PRIMARY KEY AUTOINCREMENT,
  at     REAL NOT NULL,
  job_id TEXT,
  type   TEXT NOT NULL,
  facts  TEXT NOT NULL                     -- JSON
) STRICT;

CREATE TRIGGER events_only_grow_1 BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are only appended'); END;
CREATE TRIGGER events_only_grow_2 BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are only appended'); END;
