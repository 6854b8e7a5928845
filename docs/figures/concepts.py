"""Draw the figure of docs/concepts.md: twins, a stranger, their latents, and a recast.

    python docs/figures/concepts.py

The stars are of the catalogue that `make serve` makes, the model is the shipped one.
"""

import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from model.bundle import SHIPPED, load_model
from model.methods.base import Model
from model.spectra.spectrum import Observation, Parameters, Spectrum, prepare
from training.emulator.emulator import Emulator
from training.evaluation.figures import BLUE, GREY, ORANGE, PURPLE, STYLE
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize

SNR = 100
SHOWN = slice(2050, 2350)


def main() -> None:
    """Write concepts.png beside this file."""
    model = load_model(SHIPPED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.h5"
        synthesize(path, Emulator.load(), 1000, seed=2021, snr=SNR)
        survey = Survey.open(path)
        u = survey.parameters
        apart = np.abs(u[::2, 0] - u[1::2, 0])
        first = 2 * int(np.flatnonzero((apart > 550) & (np.abs(u[::2, 2]) < 0.1))[0])
        unit = np.abs(u - u[first]) / [50, 0.2, 0.05]
        unit[[first, first + 1]] = np.inf
        rows = [first, first + 1, int(unit.sum(axis=1).argmin())]
        spectra = [_spectrum(survey, row, model) for row in rows]
    embedded = model.embed(spectra)
    at_twin = spectra[1].parameters.values(model.parameter_names)[None]
    recast = model.decode(embedded[0].latent[None].astype(np.float64), at_twin)[0]
    names = [survey.star_id[row] for row in rows]
    told = [f"{t:.0f} K, log g {g:.2f}, [Fe/H] {m:+.2f}" for t, g, m in u[rows]]
    kinds = ["a star", "its twin", "a stranger like it"]
    colours = [ORANGE, BLUE, PURPLE]
    wavelength = model.grid.wavelength[SHOWN]

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 8.4), layout="constrained")
        seen, latents, moved, left = figure.subplots(4, 1, height_ratios=[3, 2.6, 3, 1])
        for place, (spectrum, colour) in enumerate(zip(spectra, colours, strict=True)):
            label = f"{kinds[place]}: {names[place]}, {told[place]}"
            seen.plot(wavelength, spectrum.flux[SHOWN] - 0.25 * place, color=colour, linewidth=0.9, label=label)
        seen.set(ylabel="flux, shifted", ylim=(0.1, 1.6), xlim=wavelength[[0, -1]])
        seen.set_title(
            "1. As observed, the star looks like the stranger of its own temperature, not like its twin",
            loc="left",
        )
        seen.legend(loc="upper left", fontsize=7.5)

        for place, (star, colour) in enumerate(zip(embedded, colours, strict=True)):
            number = np.arange(len(star.latent)) + 1 + 0.16 * (place - 1)
            sd = np.sqrt(np.diag(star.covariance))
            latents.errorbar(number, star.latent, sd, fmt="o", color=colour, markersize=3.5, linewidth=1)
        distances = [np.linalg.norm(embedded[0].latent - other.latent) for other in embedded[1:]]
        latents.axhline(0, color=GREY, linewidth=0.5)
        latents.set(xlabel="number of the latent", ylabel="latent, in units of noise", xticks=range(1, 19))
        latents.set_title(
            "2. The latents agree with the twin's: distance {:.1f}, to the stranger {:.1f}".format(*distances),
            loc="left",
        )

        moved.plot(wavelength, spectra[0].flux[SHOWN], color=ORANGE, linewidth=0.7, alpha=0.5, label="the star")
        moved.plot(wavelength, spectra[1].flux[SHOWN], color=BLUE, linewidth=1.6, alpha=0.55, label="the twin")
        moved.plot(
            wavelength,
            recast[SHOWN],
            color="black",
            linewidth=0.8,
            label="the star, recast to the twin's parameters",
        )
        moved.set(ylabel="flux / continuum", ylim=(0.6, 1.2), xlim=wavelength[[0, -1]], xticklabels=[])
        moved.set_title("3. Recast: the star as it would look at the twin's parameters", loc="left")
        moved.legend(loc="upper left", ncols=3, fontsize=7.5)
        left.plot(wavelength, (recast - spectra[1].flux)[SHOWN], color="black", linewidth=0.7)
        left.axhspan(-1 / SNR, 1 / SNR, color=GREY, alpha=0.2, linewidth=0)
        left.set(
            ylabel="recast - twin",
            xlabel="wavelength (vacuum), Å",
            ylim=(-0.05, 0.05),
            xlim=wavelength[[0, -1]],
        )
        figure.savefig(Path(__file__).with_name("concepts.png"), dpi=130)


def _spectrum(survey: Survey, row: int, model: Model) -> Spectrum:
    flux = survey.flux(slice(row, row + 1))[0].astype(np.float64)
    observation = Observation(flux, Parameters(*survey.parameters[row]), np.full(len(flux), float(SNR) ** 2))
    return prepare(observation, model.grid, model.normaliser)


if __name__ == "__main__":
    main()
