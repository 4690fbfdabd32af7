-- Version 5 of the ledger: what sets a request's price and latency has a name of its own, whatever a model calls it.

UPDATE jobs SET spec = json_set(spec, '$.class', coalesce(json_extract(spec, '$.inputs.resolution'), ''));
