-- Stars are found by position. Some stores of version 3 have this index already.
CREATE INDEX IF NOT EXISTS stars_by_position ON stars (dec, ra) WHERE dec IS NOT NULL;
