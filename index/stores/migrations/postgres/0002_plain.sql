-- The search is in the memory of each instance: pgvector, its indexes and the counters go.
DO $$
DECLARE
    hnsw regclass;
BEGIN
    FOR hnsw IN
        SELECT indexrelid FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        JOIN pg_am ON pg_am.oid = relam
        WHERE indrelid = 'stars'::regclass AND amname = 'hnsw'
    LOOP
        EXECUTE format('DROP INDEX %s', hnsw);
    END LOOP;
END
$$;
-- float4send gives the four bytes of a number in the network's order; the new column has them the other way round
CREATE FUNCTION pg_temp.little_endian(numbers real[]) RETURNS bytea LANGUAGE sql AS $$
    SELECT string_agg(
        substr(sent, 4, 1) || substr(sent, 3, 1) || substr(sent, 2, 1) || substr(sent, 1, 1),
        ''::bytea ORDER BY rank
    )
    FROM unnest(numbers) WITH ORDINALITY AS element (number, rank), float4send(number) AS sent
$$;
ALTER TABLE stars ALTER COLUMN latent TYPE bytea USING pg_temp.little_endian(latent::real[]);
DROP FUNCTION pg_temp.little_endian;
DROP INDEX stars_by_seq;
ALTER TABLE stars ADD UNIQUE (seq);
CREATE INDEX IF NOT EXISTS stars_by_position ON stars (dec, ra) WHERE dec IS NOT NULL;
CREATE TABLE openings (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, token text COLLATE "C" NOT NULL, seq bigint NOT NULL
);
DROP TABLE models;
ALTER TABLE chemtwin DROP COLUMN seq;
