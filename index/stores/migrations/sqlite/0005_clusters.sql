-- A star's parameters beyond teff, logg and fe_h have the same name as in JSON.
ALTER TABLE stars RENAME COLUMN others TO extra;
-- Stars are found by cluster, a text in `meta`; their [Fe/H] has an error.
ALTER TABLE stars ADD COLUMN fe_h_err REAL;
ALTER TABLE stars ADD COLUMN cluster TEXT;
UPDATE stars SET cluster = (
    SELECT trim(value) FROM json_each(stars.meta)
    WHERE key IN ('cluster', 'group') AND type = 'text'
        AND length(trim(value)) BETWEEN 1 AND 64 AND value NOT GLOB '*[^ -~]*' -- half a surrogate pair is no text
    ORDER BY key LIMIT 1
) WHERE NOT deleted AND json_valid(meta);
CREATE INDEX stars_by_cluster ON stars (cluster, star_id) WHERE cluster IS NOT NULL;
