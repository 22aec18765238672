-- The cluster-wide roles of HC. Run by a superuser, once per PostgreSQL server, any number of times.
-- Passwords are not set here: whoever installs the server sets them and writes the conninfo files.
--
--   hc_owner    owns every database and object and runs migrations; row-level security holds for it too
--   hc_app      the workers on a shard: neither owns a table nor bypasses row-level security
--   hc_mover    copies and purges clinics between shards: sees every clinic of a shard
--   hc_replica  streams a server's log to a replica: may enter no database (pg_hba.conf must see to it)
--   hc_control  hc-admin on the control database
--   hc_router   the workers on the control database: reads the directory, nothing else

DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT *
        FROM (VALUES
            ('hc_owner',   'LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT'),
            ('hc_app',     'LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT'),
            ('hc_mover',   'LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION BYPASSRLS INHERIT'),
            ('hc_replica', 'LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION NOBYPASSRLS INHERIT'),
            ('hc_control', 'LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT'),
            ('hc_router',  'LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT')
        ) AS role (name, attributes)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.name) THEN
            EXECUTE format('CREATE ROLE %I', wanted.name);
        END IF;
        EXECUTE format('ALTER ROLE %I WITH %s', wanted.name, wanted.attributes);
    END LOOP;
END
$$;

-- Short, indexed statements: compiling them costs more than running them.
ALTER ROLE hc_app SET jit = off;
ALTER ROLE hc_router SET jit = off;
