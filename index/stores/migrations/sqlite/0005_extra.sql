-- A star's parameters beyond teff, logg and fe_h have the same name as in JSON.
ALTER TABLE stars RENAME COLUMN others TO extra;
