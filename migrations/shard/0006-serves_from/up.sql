-- Which programs may serve a shard: each looks before it serves, and again now and then.
-- Run by hc_owner, in one transaction.

ALTER TABLE hc_schema ADD COLUMN serves_from integer;
COMMENT ON COLUMN hc_schema.serves_from IS 'The migration that a program must know at least to serve a shard with this one; NULL: any, for it only adds.';
