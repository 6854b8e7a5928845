"""How real APOGEE spectra meet a model: noise, misfit of the reconstruction, domain.

    python benchmarks/real_spectra.py model/default.safetensors docs/examples/*.fits

An apStar without labels at hand is passed over. Labels: APOGEE DR12 catalogue (2M00004994+1621552), the
files' own pipeline values (aspcapStar).
"""

import sys
from pathlib import Path

import numpy as np

from model.bundle import load_model
from model.spectra.apogee import read_fits
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, prepare

CATALOGUE = {
    "2M00004994+1621552": {"teff": 4705.0, "logg": 2.58, "fe_h": 0.05},
    "2M17334253-1654573": {"teff": 3788.4, "logg": 1.08, "fe_h": 0.005},
    "2M17335483-2753043": {"teff": 3600.0, "logg": 0.55, "fe_h": -0.25},
    "2M19485057+5005279": {"teff": 5100.0, "logg": 4.6, "fe_h": -0.2},
}


def main() -> None:
    model = load_model(Path(sys.argv[1]))
    print(f"{model.card.identity}\n| file | S/N | masked | misfit, rms | noise, rms | chi2 | in domain |")
    print("|---|---|---|---|---|---|---|")
    for path in map(Path, sys.argv[2:]):
        star = read_fits(path.read_bytes())
        labels = star.labels or CATALOGUE.get(star.star_id or "")
        if labels is None:
            continue
        observation = Observation(
            star.flux, Parameters(**labels), star.ivar, star.bad, star.wavelength, star.normalized
        )
        spectrum = prepare(observation, model.grid, model.normaliser)
        (embedding,) = model.embed([spectrum])
        known = spectrum.parameters.values(model.parameter_names)[None]
        good = spectrum.ivar > 0
        misfit = (spectrum.flux - model.decode(embedding.latent[None].astype(float), known)[0])[good]
        print(
            f"| {path.name} | {spectrum.snr:.0f} | {spectrum.masked_fraction:.1%} "
            f"| {np.sqrt(np.mean(misfit**2)):.4f} | {np.sqrt(np.mean(1 / spectrum.ivar[good])):.4f} "
            f"| {embedding.chi2:.1f} | {embedding.in_domain} |"
        )


if __name__ == "__main__":
    main()
