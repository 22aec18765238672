-- Cross-origin resource sharing: the web origins whose pages may use a clinic's API.
-- Run by hc_owner, in one transaction.
--
-- Older programs read the directory by the names of its columns and do not see this one; newer ones need it, so
-- the control database is migrated before them.

ALTER TABLE tenant ADD COLUMN origins text[] NOT NULL DEFAULT '{}'
    CHECK (
        coalesce(array_ndims(origins), 1) = 1
        AND cardinality(origins) <= 32
        AND array_position(origins, NULL) IS NULL
        -- scheme, host and port, in the one form in which browsers send them; never '*' and never 'null'
        AND array_to_string(origins, ' ') ~ '^(https?://[a-z0-9.:\[\]-]+( |$))*$'
    );
COMMENT ON COLUMN tenant.origins IS 'Exact origins (scheme, host, port) whose pages may call the clinic''s API; hc-admin tenant cors.';

-- Columns can only be added behind the others; the rights of the view stay.
CREATE OR REPLACE VIEW directory_entry AS
SELECT
    tenant.id              AS tenant_id,
    tenant.slug            AS slug,
    tenant.name            AS name,
    tenant.state           AS tenant_state,
    tenant.time_zone       AS time_zone,
    tenant.locale          AS locale,
    placement.shard_id     AS shard_id,
    placement.epoch        AS epoch,
    placement.state        AS placement_state,
    shard.dsn_ref          AS dsn_ref,
    shard.state            AS shard_state,
    tier.name              AS tier,
    tier.version           AS tier_version,
    tier.definition        AS tier_definition,
    coalesce((
        SELECT jsonb_agg(domain.host ORDER BY domain.kind DESC, domain.host)
        FROM domain
        WHERE domain.tenant_id = tenant.id AND domain.verified_at IS NOT NULL
    ), '[]')               AS hosts,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object(
            'purpose', tenant_key.purpose,
            'version', tenant_key.version,
            'state', tenant_key.state,
            'masterKeyId', tenant_key.master_key_id,
            'wrappingVersion', tenant_key.wrapping_version,
            'wrapped', encode(tenant_key.wrapped, 'hex')
        ) ORDER BY tenant_key.purpose, tenant_key.version)
        FROM tenant_key
        WHERE tenant_key.tenant_id = tenant.id AND tenant_key.state <> 'destroyed'
    ), '[]')               AS keys,
    to_jsonb(tenant.origins) AS origins
FROM tenant
JOIN placement ON placement.tenant_id = tenant.id
JOIN shard ON shard.id = placement.shard_id
JOIN tier ON tier.name = tenant.tier
WHERE tenant.state NOT IN ('deleted', 'erased');
