"""Add white noise to a survey of observed spectra, so that no star has a higher S/N than one that you name.

python benchmarks/noisier.py training/observed/dr10_giants.h5 noisy.h5 60
chemtwin model siblings model/reference.safetensors noisy.h5 --siblings training/observed/members.csv --adapt
"""

import shutil
import sys

import h5py
import numpy as np

source, out, snr = sys.argv[1], sys.argv[2], float(sys.argv[3])
shutil.copyfile(source, out)
random = np.random.default_rng(1)
with h5py.File(out, "r+") as file:
    flux, error = (file[name][:].astype(np.float64) for name in ("flux", "error"))
    good = error > 0
    own = np.array([np.median(one[use]) for one, use in zip(error, good, strict=True)])
    added = np.sqrt(np.maximum(snr**-2 - own**2, 0.0))[:, None]
    file["flux"][:] = np.where(good, flux + added * random.standard_normal(flux.shape), flux)
    file["error"][:] = np.where(good, np.hypot(error, added), error)
    file["snr"][:] = np.minimum(file["snr"][:], snr)
