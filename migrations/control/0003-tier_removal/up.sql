-- A tier that no clinic uses any more can be removed: `hc-admin tier apply --remove TIER`.
-- Run by hc_owner, in one transaction.
--
-- The tombstone of an erased clinic keeps no tier, or it would keep the tier for ever. Everybody else must have one, and
-- the foreign key refuses a removal that meets a clinic which is just being placed in the tier.

ALTER TABLE tenant ALTER COLUMN tier DROP NOT NULL;
ALTER TABLE tenant ADD CONSTRAINT tenant_has_tier CHECK (tier IS NOT NULL OR state = 'erased');
COMMENT ON COLUMN tenant.tier IS 'What the clinic may use; only an erased one may have none.';

GRANT DELETE ON tier TO hc_control;
