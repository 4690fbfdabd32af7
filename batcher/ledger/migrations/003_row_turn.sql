-- Version 3 of the ledger: the how-manieth of its row a job is, so that money that is short goes to every row first.

ALTER TABLE jobs ADD COLUMN turn INTEGER NOT NULL DEFAULT 1;

UPDATE jobs SET turn = counted.turn FROM (
  SELECT id, row_number() OVER (
    PARTITION BY json_extract(spec, '$.rows_file'), json_extract(spec, '$.row') ORDER BY position) AS turn
  FROM jobs WHERE listed = 1) AS counted
WHERE jobs.id = counted.id AND counted.turn > 1;

CREATE INDEX jobs_broad ON jobs (turn, position) WHERE state = 'pending' AND listed = 1 AND selected = 1;
