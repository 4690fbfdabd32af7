-- Version 4 of the ledger: only what lies in files/ is counted as a file of the run, and of a job that was bought again a
-- file's name belongs to the last attempt alone: what stood there gave way to replaced/, or was the same byte for byte.

DROP TRIGGER stored_insert;
DROP TRIGGER stored_update;
DROP TRIGGER stored_delete;

UPDATE outputs SET file = NULL WHERE file IS NOT NULL AND EXISTS (SELECT 1 FROM outputs AS later
  WHERE later.job_id = outputs.job_id AND later.number > outputs.number AND later.file = outputs.file);

UPDATE stored SET (files, bytes) = (SELECT count(*), coalesce(sum(bytes), 0) FROM outputs WHERE file GLOB 'files/*');

CREATE TRIGGER stored_insert AFTER INSERT ON outputs WHEN NEW.file GLOB 'files/*' BEGIN
  UPDATE stored SET files = files + 1, bytes = bytes + coalesce(NEW.bytes, 0);
END;

CREATE TRIGGER stored_update AFTER UPDATE OF file, bytes ON outputs BEGIN
  UPDATE stored SET files = files + coalesce(NEW.file GLOB 'files/*', 0) - coalesce(OLD.file GLOB 'files/*', 0),
    bytes = bytes + CASE WHEN NEW.file GLOB 'files/*' THEN coalesce(NEW.bytes, 0) ELSE 0 END
      - CASE WHEN OLD.file GLOB 'files/*' THEN coalesce(OLD.bytes, 0) ELSE 0 END;
END;

-- Triggers of their own: SQLite lets none call itself, and what they change is counted by those above.
CREATE TRIGGER name_taken_insert AFTER INSERT ON outputs WHEN NEW.file GLOB 'files/*' AND NEW.number > 1 BEGIN
  UPDATE outputs SET file = NULL WHERE job_id = NEW.job_id AND number < NEW.number AND file = NEW.file;
END;

CREATE TRIGGER name_taken_update AFTER UPDATE OF file ON outputs
WHEN NEW.file GLOB 'files/*' AND NEW.file IS NOT OLD.file AND NEW.number > 1 BEGIN
  UPDATE outputs SET file = NULL WHERE job_id = NEW.job_id AND number < NEW.number AND file = NEW.file;
END;

CREATE TRIGGER stored_delete AFTER DELETE ON outputs WHEN OLD.file GLOB 'files/*' BEGIN
  UPDATE stored SET files = files - 1, bytes = bytes - coalesce(OLD.bytes, 0);
END;

-- What older results a row has, for the report.
CREATE INDEX jobs_unlisted ON jobs (position) WHERE listed = 0 AND state = 'done';
