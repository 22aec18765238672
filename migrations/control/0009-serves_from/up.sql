-- Which programs may work with the control database: each looks with every poll.
-- Run by hc_owner, in one transaction.

ALTER TABLE hc_schema ADD COLUMN serves_from integer;
COMMENT ON COLUMN hc_schema.serves_from IS 'The migration that a program must know at least to work with this one; NULL: any, for it only adds.';
