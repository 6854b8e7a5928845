-- A star may have a row by each of several models, and a spectrum; each opening of the store is recorded.
ALTER TABLE stars RENAME TO stars_of_version_2;
CREATE TABLE stars (
    star_id TEXT NOT NULL,
    model TEXT NOT NULL,
    seq INTEGER NOT NULL UNIQUE,
    deleted INTEGER NOT NULL DEFAULT 0,
    latent BLOB, covariance BLOB,
    teff REAL, logg REAL, fe_h REAL,
    snr REAL, chi2 REAL, masked_fraction REAL, in_domain INTEGER, warnings TEXT,
    ra REAL, dec REAL, meta TEXT, others TEXT,
    PRIMARY KEY (star_id, model)
) WITHOUT ROWID;
INSERT INTO stars (
    star_id, model, seq, deleted, latent, covariance, teff, logg, fe_h, snr, chi2, masked_fraction, in_domain,
    warnings, ra, dec, meta, others
)
SELECT
    star_id, coalesce(model, ''), seq, deleted, latent, covariance, teff, logg, fe_h, snr, chi2,
    masked_fraction, in_domain, warnings, ra, dec, meta, others
FROM stars_of_version_2;
DROP TABLE stars_of_version_2;
CREATE TABLE spectra (star_id TEXT PRIMARY KEY, spectrum BLOB NOT NULL);
CREATE TABLE openings (number INTEGER PRIMARY KEY, token TEXT NOT NULL, seq INTEGER NOT NULL);
