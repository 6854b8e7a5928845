-- A star's parameters beyond teff, logg and fe_h have the same name as in JSON.
ALTER TABLE stars RENAME COLUMN others TO extra;
-- Stars are found by cluster, a text in `meta`; their [Fe/H] has an error.
ALTER TABLE stars ADD COLUMN fe_h_err float8;
ALTER TABLE stars ADD COLUMN cluster text COLLATE "C";
-- `meta` may have what PostgreSQL's JSON does not take: NaN, or a NUL
CREATE FUNCTION pg_temp.cluster_of(meta text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT btrim(value #>> '{}') FROM jsonb_each(meta::jsonb)
        WHERE key IN ('cluster', 'group') AND jsonb_typeof(value) = 'string'
            AND btrim(value #>> '{}') ~ '^[ -~]{1,64}$'
        ORDER BY key LIMIT 1
    );
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;
UPDATE stars SET cluster = pg_temp.cluster_of(meta) WHERE NOT deleted;
DROP FUNCTION pg_temp.cluster_of;
CREATE INDEX stars_by_cluster ON stars (cluster, star_id) WHERE cluster IS NOT NULL;
