-- Version 2 of the ledger: sums that are kept with every change, so that no question counts a million rows.
-- Money is in billionths of a USD, in whole numbers: what is added and taken away again leaves nothing behind.

CREATE TABLE tally (
  state    TEXT NOT NULL,
  listed   INTEGER NOT NULL,
  selected INTEGER NOT NULL,
  kind     TEXT NOT NULL,                  -- '' where there is none
  jobs     INTEGER NOT NULL CHECK (jobs >= 0),
  nano_usd INTEGER NOT NULL,               -- estimated
  PRIMARY KEY (state, listed, selected, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE spending (
  outcome  TEXT PRIMARY KEY,
  attempts INTEGER NOT NULL CHECK (attempts >= 0),
  billed   INTEGER NOT NULL,               -- nano USD
  unbilled INTEGER NOT NULL                -- nano USD, the estimate of what was not (yet) billed
) STRICT, WITHOUT ROWID;

CREATE TABLE stored (
  one   INTEGER PRIMARY KEY CHECK (one = 1),
  files INTEGER NOT NULL CHECK (files >= 0),
  bytes INTEGER NOT NULL
) STRICT;

INSERT INTO tally SELECT state, listed, selected, coalesce(kind, ''), count(*),
  sum(CAST(round(coalesce(estimated_usd, 0) * 1e9) AS INTEGER)) FROM jobs GROUP BY 1, 2, 3, 4;
INSERT INTO spending SELECT outcome, count(*), sum(CAST(round(coalesce(billed_usd, 0) * 1e9) AS INTEGER)),
  sum(CASE WHEN billed_usd IS NULL THEN CAST(round(coalesce(estimated_usd, 0) * 1e9) AS INTEGER) ELSE 0 END)
  FROM attempts GROUP BY outcome;
INSERT INTO stored SELECT 1, count(file), coalesce(sum(bytes) FILTER (WHERE file IS NOT NULL), 0) FROM outputs;

CREATE TRIGGER tally_insert AFTER INSERT ON jobs BEGIN
  INSERT INTO tally VALUES (NEW.state, NEW.listed, NEW.selected, coalesce(NEW.kind, ''), 1,
    CAST(round(coalesce(NEW.estimated_usd, 0) * 1e9) AS INTEGER))
  ON CONFLICT DO UPDATE SET jobs = jobs + 1, nano_usd = nano_usd + excluded.nano_usd;
END;

CREATE TRIGGER tally_update AFTER UPDATE OF state, listed, selected, kind, estimated_usd ON jobs
WHEN NEW.state <> OLD.state OR NEW.listed <> OLD.listed OR NEW.selected <> OLD.selected
  OR NEW.kind IS NOT OLD.kind OR NEW.estimated_usd IS NOT OLD.estimated_usd
BEGIN
  UPDATE tally SET jobs = jobs - 1, nano_usd = nano_usd - CAST(round(coalesce(OLD.estimated_usd, 0) * 1e9) AS INTEGER)
  WHERE state = OLD.state AND listed = OLD.listed AND selected = OLD.selected AND kind = coalesce(OLD.kind, '');
  INSERT INTO tally VALUES (NEW.state, NEW.listed, NEW.selected, coalesce(NEW.kind, ''), 1,
    CAST(round(coalesce(NEW.estimated_usd, 0) * 1e9) AS INTEGER))
  ON CONFLICT DO UPDATE SET jobs = jobs + 1, nano_usd = nano_usd + excluded.nano_usd;
END;

CREATE TRIGGER spending_insert AFTER INSERT ON attempts BEGIN
  INSERT INTO spending VALUES (NEW.outcome, 1, CAST(round(coalesce(NEW.billed_usd, 0) * 1e9) AS INTEGER),
    CASE WHEN NEW.billed_usd IS NULL THEN CAST(round(coalesce(NEW.estimated_usd, 0) * 1e9) AS INTEGER) ELSE 0 END)
  ON CONFLICT DO UPDATE SET attempts = attempts + 1, billed = billed + excluded.billed,
    unbilled = unbilled + excluded.unbilled;
END;

CREATE TRIGGER spending_update AFTER UPDATE OF outcome, billed_usd, estimated_usd ON attempts
WHEN NEW.outcome <> OLD.outcome OR NEW.billed_usd IS NOT OLD.billed_usd OR NEW.estimated_usd IS NOT OLD.estimated_usd
BEGIN
  UPDATE spending SET attempts = attempts - 1,
    billed = billed - CAST(round(coalesce(OLD.billed_usd, 0) * 1e9) AS INTEGER),
    unbilled = unbilled
      - CASE WHEN OLD.billed_usd IS NULL THEN CAST(round(coalesce(OLD.estimated_usd, 0) * 1e9) AS INTEGER) ELSE 0 END
  WHERE outcome = OLD.outcome;
  INSERT INTO spending VALUES (NEW.outcome, 1, CAST(round(coalesce(NEW.billed_usd, 0) * 1e9) AS INTEGER),
    CASE WHEN NEW.billed_usd IS NULL THEN CAST(round(coalesce(NEW.estimated_usd, 0) * 1e9) AS INTEGER) ELSE 0 END)
  ON CONFLICT DO UPDATE SET attempts = attempts + 1, billed = billed + excluded.billed,
    unbilled = unbilled + excluded.unbilled;
END;

CREATE TRIGGER stored_insert AFTER INSERT ON outputs WHEN NEW.file IS NOT NULL BEGIN
  UPDATE stored SET files = files + 1, bytes = bytes + coalesce(NEW.bytes, 0);
END;

CREATE TRIGGER stored_update AFTER UPDATE OF file, bytes ON outputs BEGIN
  UPDATE stored SET files = files + (NEW.file IS NOT NULL) - (OLD.file IS NOT NULL),
    bytes = bytes + CASE WHEN NEW.file IS NULL THEN 0 ELSE coalesce(NEW.bytes, 0) END
      - CASE WHEN OLD.file IS NULL THEN 0 ELSE coalesce(OLD.bytes, 0) END;
END;

CREATE TRIGGER stored_delete AFTER DELETE ON outputs WHEN OLD.file IS NOT NULL BEGIN
  UPDATE stored SET files = files - 1, bytes = bytes - coalesce(OLD.bytes, 0);
END;

-- When the next waiting job may go is asked at every turn.
CREATE INDEX jobs_due ON jobs (not_before) WHERE state = 'pending' AND listed = 1 AND selected = 1;

-- What is asked of the end of a run, while it has millions of events.
CREATE INDEX events_ended ON events (seq) WHERE type = 'Ended';
CREATE INDEX jobs_done ON jobs (settled_at) WHERE state = 'done';
