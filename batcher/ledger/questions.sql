-- Every question that is asked of the ledger, by the writer or by readers in other processes.

-- name: waiting
-- The jobs to be submitted next, in the manifest's order. SQLite would take the index by state, and sort all that wait.
SELECT * FROM jobs INDEXED BY jobs_waiting WHERE state = 'pending' AND listed = 1 AND selected = 1 AND not_before <= :now
ORDER BY position LIMIT :limit;

-- name: waiting_broad
-- The same, one job of each row before a second of any.
SELECT * FROM jobs INDEXED BY jobs_broad WHERE state = 'pending' AND listed = 1 AND selected = 1 AND not_before <= :now
ORDER BY turn, position LIMIT :limit;

-- name: left_estimate
-- What the jobs that wait are estimated to cost.
SELECT total(nano_usd) / 1e9 FROM tally WHERE state = 'pending' AND listed = 1 AND selected = 1;

-- name: unsettled_estimate
-- What the jobs that a start brings to rest are estimated to cost; nothing where their price is not known.
SELECT total(nano_usd) / 1e9 AS usd, total(jobs) AS jobs FROM tally
WHERE state IN ('pending', 'submitting', 'running', 'fetching') AND listed = 1 AND selected = 1;

-- name: unbilled
-- What is at the server, or may be, or ended there without a word, at the price that it was submitted at.
SELECT jobs.id AS id, json_extract(spec, '$.model') AS model, json_extract(spec, '$.class') AS class,
  attempts.estimated_usd AS estimated
FROM attempts JOIN jobs ON jobs.id = attempts.job_id AND jobs.attempt = attempts.number
WHERE (attempts.outcome IN ('open', 'uncertain') OR (jobs.state = 'failed' AND jobs.kind IN ('timeout', 'gone')))
  AND attempts.billed_usd IS NULL AND attempts.estimated_usd > 0;

-- name: bills
-- What the attempts that were billed last had been estimated to cost.
SELECT json_extract(spec, '$.model') AS model, json_extract(spec, '$.class') AS class,
  attempts.estimated_usd AS estimated, attempts.billed_usd AS billed
FROM (SELECT job_id, max(seq) AS seq FROM
  (SELECT job_id, seq FROM events WHERE job_id IS NOT NULL ORDER BY seq DESC LIMIT 2000) GROUP BY job_id) AS latest
JOIN jobs ON jobs.id = latest.job_id JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt
WHERE attempts.billed_usd IS NOT NULL AND attempts.estimated_usd > 0 ORDER BY latest.seq DESC LIMIT 200;

-- name: results
-- What the attempts that ended last were billed, or nothing where their result came without a bill.
SELECT json_extract(spec, '$.model') AS model, json_extract(spec, '$.class') AS class,
  attempts.estimated_usd AS estimated, attempts.billed_usd AS billed
FROM (SELECT job_id, max(seq) AS seq FROM
  (SELECT job_id, seq FROM events WHERE job_id IS NOT NULL ORDER BY seq DESC LIMIT 2000) GROUP BY job_id) AS latest
JOIN jobs ON jobs.id = latest.job_id JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt
WHERE (attempts.billed_usd IS NOT NULL OR attempts.outcome = 'done') AND attempts.estimated_usd > 0
ORDER BY latest.seq DESC LIMIT 200;

-- name: example
-- One job that failed, or is uncertain, in this way.
SELECT id, name, message FROM jobs
WHERE state IN ('failed', 'uncertain') AND listed = 1 AND selected IN (0, 1) AND kind = :kind LIMIT 1;

-- name: waits
-- The jobs at the server that wait for something that did not come as it should, and what the one that waits longest says.
SELECT count(*) AS jobs, id, name, message, min(running_since) FROM jobs
WHERE state IN ('running', 'fetching') AND message IS NOT NULL;

-- name: uncertain
-- Submissions whose answers were lost, and that nobody has decided about.
SELECT total(jobs) AS jobs FROM tally WHERE state = 'uncertain' AND kind = 'lost';

-- name: listed_rows
-- The row of each job that the manifest names.
SELECT json_extract(spec, '$.row') AS row FROM jobs WHERE listed = 1 ORDER BY row;

-- name: left_out
SELECT count(*) FROM jobs WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'pending' AND NOT (listed AND selected);

-- name: last_event
SELECT coalesce(max(seq), 0) FROM events;

-- name: events_after
SELECT seq, at, job_id, type, facts FROM events WHERE seq > :seq ORDER BY seq LIMIT :limit;

-- name: moved_since
SELECT DISTINCT job_id FROM events WHERE seq > :seq AND type = 'Moved' AND job_id IS NOT NULL;

-- name: left_out_of_all
SELECT count(*) FROM jobs WHERE state = 'pending' AND attempt > 0 AND (listed = 0 OR selected = 0);

-- name: unpriced
SELECT count(*) AS jobs FROM jobs WHERE state = 'pending' AND listed = 1 AND selected = 1 AND estimated_usd IS NULL;

-- name: next_due
SELECT min(not_before) FROM jobs INDEXED BY jobs_due WHERE state = 'pending' AND listed = 1 AND selected = 1;

-- name: under_way
-- What an earlier process left in these states; unlisted ones too, for they are paid for.
SELECT * FROM jobs WHERE state = :state ORDER BY submitted_at;

-- name: job
SELECT * FROM jobs WHERE id = :id;

-- name: outputs
SELECT idx, url, file, bytes, sha256, mime, width, height, downloaded_at FROM outputs
WHERE job_id = :id AND number = :number ORDER BY idx;

-- name: attempt
SELECT * FROM attempts WHERE job_id = :id AND number = :number;

-- name: holder
SELECT job_id FROM attempts WHERE request_id = :request_id;

-- name: known_requests
-- Those of these ids that attempts of this run have.
SELECT request_id FROM attempts WHERE request_id IN (SELECT value FROM json_each(:ids));

-- name: any_done
SELECT id FROM jobs WHERE state = 'done' LIMIT 1;

-- name: waiting_ids
-- Jobs that would be bought, a page of them.
SELECT rowid, id FROM jobs WHERE state = 'pending' AND listed = 1 AND selected = 1 AND rowid > :after
ORDER BY rowid LIMIT :limit;

-- name: count_done
SELECT count(*) FROM jobs WHERE state = 'done' AND id IN (SELECT value FROM json_each(:ids));

-- name: states_at
SELECT id, state, listed FROM jobs WHERE rowid BETWEEN :first AND :last;

-- name: states_of
SELECT rowid AS place, id, state, listed FROM jobs WHERE id IN (SELECT value FROM json_each(:ids));

-- name: any_attempt
SELECT job_id FROM attempts LIMIT 1;

-- name: submissions
-- Every intent that this ledger knows of.
SELECT job_id, at FROM events WHERE type = 'Moved' AND facts LIKE '%"to":"submitting"%';

-- name: evidence
-- What was seen on the wire when submissions of these jobs were lost.
SELECT attempts.job_id, attempts.number, attempts.submitted_at, attempts.evidence FROM attempts
JOIN jobs ON jobs.id = attempts.job_id AND jobs.attempt = attempts.number
WHERE jobs.state = 'uncertain' AND attempts.evidence IS NOT NULL ORDER BY jobs.position;

-- name: owners_of_name
-- The jobs that made files of this name, whatever the extension; and whether the manifest still names them.
SELECT jobs.id, jobs.listed, outputs.file FROM outputs JOIN jobs ON jobs.id = outputs.job_id
WHERE outputs.file > :stem || '.' AND outputs.file < :stem || '/'
  AND instr(substr(outputs.file, length(:stem) + 2), '.') = 0 AND jobs.id <> :id;

-- name: gave_way
-- Files that gave way to other jobs', of jobs that the manifest names again since.
SELECT DISTINCT outputs.job_id FROM outputs JOIN jobs ON jobs.id = outputs.job_id AND jobs.attempt = outputs.number
WHERE outputs.file >= 'replaced/' AND outputs.file < 'replaced0' AND jobs.listed = 1 AND jobs.state = 'done'
ORDER BY jobs.position;

-- name: states
SELECT state, listed, selected, nullif(kind, '') AS kind, jobs FROM tally WHERE jobs > 0;

-- name: estimate
SELECT total(nano_usd) / 1e9 FROM tally WHERE listed = 1;

-- name: money
-- By outcome: what was billed, and the estimate of what was not (yet) billed.
SELECT outcome, attempts, billed / 1e9 AS billed, unbilled / 1e9 AS unbilled FROM spending WHERE attempts > 0;

-- name: files
SELECT files, bytes FROM stored;

-- name: places
SELECT rowid FROM jobs WHERE (:state IS NULL OR state = :state) AND (:kind IS NULL OR kind = :kind)
  AND (:job IS NULL OR id = :job) AND (:listed IS NULL OR listed = :listed) AND (listed = 1 OR state <> 'pending')
ORDER BY listed DESC, position;

-- name: places_by_row
SELECT rowid FROM jobs WHERE (:state IS NULL OR state = :state) AND (:kind IS NULL OR kind = :kind) AND listed = :listed
  AND (listed = 1 OR state <> 'pending') ORDER BY json_extract(spec, '$.row'), position;

-- name: jobs_of
-- The jobs at these places, each with its files; a list, for it is asked in pages.
SELECT jobs.*, (SELECT json_group_array(file) FROM outputs
  WHERE outputs.job_id = jobs.id AND outputs.number = jobs.attempt AND file IS NOT NULL) AS files
FROM json_each(:places) AS place CROSS JOIN jobs ON jobs.rowid = place.value ORDER BY place.key;

-- name: outputs_at
-- What the last attempts of these jobs made.
SELECT outputs.* FROM json_each(:places) AS place CROSS JOIN jobs ON jobs.rowid = place.value
JOIN outputs ON jobs.id = outputs.job_id AND jobs.attempt = outputs.number ORDER BY place.key, outputs.idx;

-- name: attempts_at
SELECT attempts.* FROM json_each(:places) AS place CROSS JOIN jobs ON jobs.rowid = place.value
JOIN attempts ON jobs.id = attempts.job_id AND jobs.attempt = attempts.number;

-- name: known_files
-- What gave way to another file is not looked after any more, unless its job is named again: then it is its only one.
SELECT outputs.*, jobs.state, jobs.request_id FROM json_each(:places) AS place CROSS JOIN jobs ON jobs.rowid = place.value
JOIN outputs ON jobs.id = outputs.job_id AND jobs.attempt = outputs.number
WHERE outputs.file IS NOT NULL AND (jobs.listed = 1 OR outputs.file NOT GLOB 'replaced/*') ORDER BY place.key, outputs.idx;

-- name: meta
SELECT key, value FROM meta;

-- name: models
SELECT id, entry FROM models;

-- name: images_after
-- Local images, some at a time.
SELECT path, size, mtime_ns FROM images WHERE path > :after ORDER BY path LIMIT :limit;

-- name: image
SELECT size, mtime_ns, facts FROM images WHERE path = :path;

-- name: latencies
-- What the jobs that ended last took at the server, in seconds, as far as that was seen.
SELECT attempts.took AS seconds, json_extract(spec, '$.model') AS model, json_extract(spec, '$.class') AS class
FROM (SELECT job_id, max(seq) AS seq FROM
  (SELECT job_id, seq FROM events WHERE job_id IS NOT NULL ORDER BY seq DESC LIMIT 2000) GROUP BY job_id) AS latest
JOIN jobs ON jobs.id = latest.job_id JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt
WHERE attempts.took IS NOT NULL AND jobs.state IN ('done', 'fetching')
ORDER BY latest.seq DESC LIMIT 200;

-- name: last_ended
SELECT facts FROM events WHERE type = 'Ended' ORDER BY seq DESC LIMIT 1;

-- name: done_since
SELECT count(*) AS jobs FROM jobs WHERE state = 'done' AND settled_at > :after;

-- name: latest_trouble
-- What was said of the server among the last events.
SELECT at, type, facts FROM events WHERE seq > (SELECT max(seq) FROM events) - 500 AND type IN ('Held', 'Silence', 'Stopping', 'Started')
ORDER BY seq;

-- name: listed_places
SELECT rowid FROM jobs WHERE listed = 1 ORDER BY position;

-- name: older
-- Jobs that the manifest names no more and that have results: where each is, and the row that it was made of.
SELECT rowid AS place, json_extract(spec, '$.row') AS row FROM jobs WHERE listed = 0 AND state = 'done' ORDER BY settled_at;

-- name: span
-- From the first submission to the last end, of what was done.
SELECT min(submitted_at) AS first, max(settled_at) AS last, count(*) AS jobs FROM jobs WHERE state = 'done';

-- name: finished_by
-- How many jobs were done in each stretch of so many seconds.
SELECT CAST((settled_at - :first) / :step AS INTEGER) AS stretch, count(*) AS jobs FROM jobs
WHERE state = 'done' AND settled_at >= :first GROUP BY 1 ORDER BY 1;

-- name: spent_by
-- What was billed in each stretch, by when the attempt ended; the estimate where there is no bill.
SELECT CAST((ended_at - :first) / :step AS INTEGER) AS stretch, total(coalesce(billed_usd, estimated_usd)) AS usd
FROM attempts WHERE outcome = 'done' AND ended_at >= :first GROUP BY 1 ORDER BY 1;

-- name: quantile
-- How long the server took: of all done jobs in order, the one at this place.
SELECT completed_at - submitted_at AS seconds FROM jobs
WHERE state = 'done' AND completed_at >= submitted_at ORDER BY 1 LIMIT 1 OFFSET :place;

-- name: took_by
-- How many jobs took so long at the server, in bins of :width seconds; what took longer than all is in the last one.
SELECT min(CAST((completed_at - submitted_at - :low) / :width AS INTEGER), :bins - 1) AS bin, count(*) AS jobs FROM jobs
WHERE state = 'done' AND completed_at - submitted_at >= :low GROUP BY 1;

-- name: active
-- How many jobs were done, and in how many stretches of so many seconds any was.
SELECT count(*) AS jobs, count(DISTINCT CAST(settled_at / :stretch AS INTEGER)) AS stretches FROM jobs WHERE state = 'done';

-- name: by_value
-- Jobs and money by what a variable or an input is, in the order in which the values come.
WITH valued AS (
  SELECT id, position, state, coalesce(
    (SELECT coalesce(value, '') FROM json_each(jobs.spec, '$.vars') WHERE key = :by),
    (SELECT coalesce(value, '') FROM json_each(jobs.spec, '$.inputs') WHERE key = :by),
    CASE :by WHEN 'model' THEN json_extract(spec, '$.model') WHEN 'sample' THEN sample WHEN 'row' THEN json_extract(spec, '$.row')
      WHEN 'original' THEN json_extract(spec, '$.sources[0]') WHEN 'state' THEN state WHEN 'kind' THEN kind END) AS value
  FROM jobs WHERE listed = 1),
bills AS (SELECT job_id, total(billed_usd) AS billed,
  total(CASE WHEN billed_usd IS NULL AND outcome NOT IN ('turned_away', 'refused') THEN estimated_usd END) AS unbilled
  FROM attempts GROUP BY job_id)
SELECT value, count(*) AS jobs, sum(state = 'done') AS done, sum(state = 'failed') AS failed,
  sum(state = 'uncertain') AS uncertain, sum(state = 'cancelled') AS cancelled,
  sum(state NOT IN ('done', 'failed', 'uncertain', 'cancelled')) AS "left",
  total(billed) AS billed, total(unbilled) AS unbilled
FROM valued LEFT JOIN bills ON bills.job_id = valued.id GROUP BY value ORDER BY min(position);

-- name: variables
-- What the first jobs can be told apart by.
SELECT DISTINCT key FROM (SELECT spec FROM jobs WHERE listed = 1 LIMIT 200) AS first, json_each(first.spec, '$.vars')
UNION SELECT DISTINCT key FROM (SELECT spec FROM jobs WHERE listed = 1 LIMIT 200) AS first, json_each(first.spec, '$.inputs');
