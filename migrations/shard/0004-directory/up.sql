-- What a clinic offers, and read models.
--
-- `cache_tag` counts the changes of things that read models are made of: a change adds one in its own transaction, so
-- a model that says which counts it was made of is known to be current by one look at both, in one snapshot.

CREATE TABLE service (
    tenant_id        uuid        NOT NULL,
    id               uuid        NOT NULL,
    name             text        NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    description      text        CHECK (length(description) BETWEEN 1 AND 2000),
    duration_minutes smallint    NOT NULL CHECK (duration_minutes BETWEEN 5 AND 720),
    price_minor      bigint      CHECK (price_minor BETWEEN 0 AND 100000000000),
    active           boolean     NOT NULL DEFAULT true,
    version          bigint      NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE service IS 'Kinds of visits that the clinic offers.';
COMMENT ON COLUMN service.duration_minutes IS 'Of one visit, buffers not counted.';
COMMENT ON COLUMN service.price_minor IS 'In the smallest unit of the clinic''s currency; NULL: not said.';
COMMENT ON COLUMN service.active IS 'False: not offered any more.';
COMMENT ON COLUMN service.version IS 'Counts changes; the ETag.';

CREATE TABLE service_practitioner (
    tenant_id       uuid NOT NULL,
    service_id      uuid NOT NULL,
    practitioner_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, service_id, practitioner_id),
    FOREIGN KEY (tenant_id, service_id) REFERENCES service (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, practitioner_id) REFERENCES practitioner (tenant_id, id)
);
COMMENT ON TABLE service_practitioner IS 'Who offers a service.';
CREATE INDEX service_practitioner_practitioner ON service_practitioner (tenant_id, practitioner_id);

CREATE TABLE cache_tag (
    tenant_id uuid   NOT NULL,
    tag       text   NOT NULL CHECK (length(tag) BETWEEN 1 AND 64),
    count     bigint NOT NULL CHECK (count > 0),
    PRIMARY KEY (tenant_id, tag)
) WITH (fillfactor = 50);
COMMENT ON TABLE cache_tag IS 'How often what a tag names was changed; no row: never.';

CREATE TABLE read_model (
    tenant_id  uuid        NOT NULL,
    name       text        NOT NULL CHECK (length(name) BETWEEN 1 AND 256),
    epoch      bigint      NOT NULL,
    tags       text        NOT NULL,
    counts     text        NOT NULL,
    body       bytea       NOT NULL CHECK (length(body) <= 2097152),
    made_at    timestamptz NOT NULL DEFAULT now(),
    good_until timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
COMMENT ON TABLE read_model IS 'Answers that take long to compute. Copies: every row may be deleted at any time.';
COMMENT ON COLUMN read_model.epoch IS 'Of the clinic when it was made: after a move it is made anew.';
COMMENT ON COLUMN read_model.tags IS 'What it was made of, in the order of counts, with commas.';
COMMENT ON COLUMN read_model.counts IS 'The counts of the tags before the source was read: with others it is out of date.';
COMMENT ON COLUMN read_model.body IS 'Sealed under the clinic''s key if it says something about a patient.';

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['service', 'service_practitioner', 'cache_tag', 'read_model']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT hc_ctx_tenant())) '
            'WITH CHECK (tenant_id = (SELECT hc_ctx_tenant()))', name);
    END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE ON service, cache_tag TO hc_app;
GRANT SELECT, INSERT, DELETE ON service_practitioner TO hc_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON read_model TO hc_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON service, service_practitioner, cache_tag, read_model TO hc_mover;
