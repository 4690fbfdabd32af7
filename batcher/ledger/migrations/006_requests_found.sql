-- Version 6 of the ledger: what tells an attempt's request from any other in the vendor's list of past requests, and the
-- URLs by which the server wants to be asked about it, where they are not those that its documents tell.

ALTER TABLE attempts ADD COLUMN seed INTEGER;
ALTER TABLE attempts ADD COLUMN follow TEXT;

-- Seconds from acceptance to the end, where it was seen: not where nobody looked meanwhile, and no stamp tells.
ALTER TABLE attempts ADD COLUMN took REAL;

-- There was one provider until then.
INSERT INTO meta (key, value) SELECT 'vendor', '"runcomfy"' FROM meta WHERE key = 'provider';
