-- Every write of a job's life. Each names the state it expects, and lands on one row or on none.

-- name: move
-- The compare-and-swap of a job's state; what is not learned by this move stays as it was.
UPDATE jobs SET
  state = :to, kind = :kind, message = :message, not_before = :not_before,
  attempt = attempt + :attempts,
  request_id = CASE :to WHEN 'pending' THEN NULL WHEN 'submitting' THEN NULL ELSE coalesce(:request_id, request_id) END,
  submitted_at = CASE :to WHEN 'submitting' THEN :now ELSE submitted_at END,
  running_since = CASE WHEN :to <> 'running' THEN running_since WHEN :asked THEN NULL ELSE :now END,
  completed_at = CASE :to WHEN 'pending' THEN NULL ELSE coalesce(:completed_at, completed_at) END,
  settled_at = CASE WHEN :settled THEN :now END
WHERE id = :id AND state = :from AND attempt = :attempt;

-- name: come_due
UPDATE jobs SET not_before = :latest WHERE state = 'pending' AND not_before > :latest;

-- name: open_attempt
-- The intent, on disk before the request leaves; an attempt that was turned away is used again.
INSERT INTO attempts (job_id, number, submitted_at, outcome, estimated_usd, seed)
VALUES (:id, :number, :now, 'open', :estimated_usd, :seed)
ON CONFLICT (job_id, number) DO UPDATE
SET submitted_at = :now, outcome = 'open', evidence = NULL, estimated_usd = :estimated_usd, seed = :seed
WHERE outcome = 'turned_away';

-- name: one_more_attempt
-- Only where a request is adopted beside one that the job already had.
UPDATE jobs SET attempt = :number WHERE id = :id;

-- name: accept_attempt
UPDATE attempts SET request_id = :request_id, accepted_at = :now, outcome = 'open', follow = coalesce(:follow, follow),
  evidence = coalesce(:evidence, evidence)
WHERE job_id = :id AND number = :number AND (request_id IS NULL OR request_id = :request_id);

-- name: end_attempt
-- What became of the attempt; a bill once known is kept.
UPDATE attempts SET outcome = :outcome, ended_at = :now, billed_usd = coalesce(:billed_usd, billed_usd),
  took = coalesce(:took, took), evidence = coalesce(:evidence, evidence)
WHERE job_id = :id AND number = :number;

-- name: holder_of_request
-- A server that gives one id to two jobs must not make one of them lose its result.
SELECT job_id, number FROM attempts WHERE request_id = :request_id;

-- name: whereabouts
SELECT id, state, attempt FROM jobs WHERE id IN (SELECT value FROM json_each(:ids));

-- name: any_holder
-- The same of many ids at once.
SELECT 1 FROM attempts WHERE request_id IN (SELECT value FROM json_each(:ids)) LIMIT 1;

-- name: put_output
INSERT INTO outputs (job_id, number, idx, url, file, bytes, sha256, mime, width, height, downloaded_at)
VALUES (:id, :number, :index, :url, :file, :bytes, :sha256, :mime, :width, :height, :downloaded_at)
ON CONFLICT (job_id, number, idx) DO UPDATE SET url = :url, file = coalesce(:file, file), bytes = :bytes,
  sha256 = :sha256, mime = :mime, width = :width, height = :height, downloaded_at = :downloaded_at;

-- name: file_moved
-- The file gave way, and is found where it is now.
UPDATE outputs SET file = :to WHERE file = :file AND job_id = :id;

-- name: forget_outputs
DELETE FROM outputs WHERE job_id = :id AND number = :number;

-- name: add_event
INSERT INTO events (at, job_id, type, facts) VALUES (:at, :job_id, :type, :facts);

-- name: wait
-- What a job at the server waits for; nothing once it has gone on.
UPDATE jobs SET message = :message WHERE id = :job_id AND request_id = :request_id AND state IN ('running', 'fetching');

-- name: wait_no_more
UPDATE jobs SET message = NULL WHERE state IN ('running', 'fetching') AND message IS NOT NULL;

-- name: put_meta
INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = :value;

-- name: put_model
INSERT INTO models (id, entry) VALUES (:id, :entry) ON CONFLICT (id) DO UPDATE SET entry = :entry;

-- name: put_image
INSERT INTO images (path, size, mtime_ns, facts) VALUES (:path, :size, :mtime_ns, :facts)
ON CONFLICT (path) DO UPDATE SET size = :size, mtime_ns = :mtime_ns, facts = :facts;

-- name: stage_table
-- The manifest's jobs, before they are taken over whole or not at all.
CREATE TEMP TABLE named (
  position INTEGER PRIMARY KEY, id TEXT, name TEXT, spec TEXT, sample INTEGER, row INTEGER, estimated_usd REAL, chosen INTEGER, turn INTEGER
);

-- name: stage
-- Many at once, as a JSON array of arrays: one step of SQLite's, in which other threads can work.
INSERT INTO temp.named
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'),
  json_extract(value, '$[4]'), json_extract(value, '$[5]'), json_extract(value, '$[6]'), json_extract(value, '$[7]'),
  json_extract(value, '$[8]')
FROM json_each(:jobs);

-- name: import_first
-- The same into a ledger that has no jobs yet.
INSERT INTO jobs (position, id, name, spec, sample, estimated_usd, selected, turn, listed, state, created_at)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'),
  json_extract(value, '$[4]'), json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]'),
  1, 'pending', :now
FROM json_each(:jobs);

-- name: stage_index
CREATE UNIQUE INDEX temp.named_by_id ON named (id);

-- name: stage_drop
DROP TABLE IF EXISTS temp.named;

-- name: choose_first
UPDATE temp.named SET chosen = 0 WHERE position >
  (SELECT position FROM temp.named WHERE chosen = 1 ORDER BY position LIMIT 1 OFFSET :limit - 1);

-- name: apart
-- What follows a table's rows one by one, and is quicker made at once.
SELECT type, name, sql FROM sqlite_master WHERE tbl_name = 'jobs' AND type IN ('index', 'trigger') AND sql IS NOT NULL;

-- name: forget_tally
DELETE FROM tally;

-- name: count_tally
INSERT INTO tally SELECT state, listed, selected, coalesce(kind, ''), count(*),
  sum(CAST(round(coalesce(estimated_usd, 0) * 1e9) AS INTEGER)) FROM jobs GROUP BY 1, 2, 3, 4;

-- name: would_unlist
SELECT count(*) FROM jobs WHERE listed = 1 AND state = 'done' AND id NOT IN (SELECT id FROM temp.named);

-- name: unlist
-- A job that the manifest no longer names stays, out of totals.
UPDATE jobs SET listed = 0 WHERE listed = 1 AND id NOT IN (SELECT id FROM temp.named);

-- name: import_staged
-- New jobs come in; known ones keep their life, and take the new name only while they have no files.
INSERT INTO jobs (id, position, listed, selected, name, spec, sample, estimated_usd, state, created_at, turn)
SELECT id, position, 1, chosen, name, spec, sample, estimated_usd, 'pending', :now, turn FROM temp.named WHERE true ORDER BY id
ON CONFLICT (id) DO UPDATE SET position = excluded.position, listed = 1, selected = excluded.selected,
  name = CASE WHEN state = 'done' THEN name ELSE excluded.name END,
  spec = CASE WHEN state IN ('done', 'submitting', 'running', 'fetching') THEN spec ELSE excluded.spec END,
  estimated_usd = excluded.estimated_usd, turn = excluded.turn;
