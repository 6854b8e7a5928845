-- A star has parameters beyond teff, logg and fe_h.
ALTER TABLE stars ADD COLUMN others TEXT;
UPDATE stars SET others = '{}' WHERE NOT deleted;
