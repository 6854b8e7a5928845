"""Draw the figure of docs/explanation/concepts.md: twins, a stranger, their latents, and a recast.

    python docs/figures/concepts.py

The stars are synthetic, and the model is the reference, for synthetic spectra.
"""

import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.bundle import REFERENCE, load_model
from model.methods.base import Embedding, Model
from model.spectra.grid import Array
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, Spectrum, prepare
from training.emulator.emulator import Emulator
from training.evaluation.figures import BLUE, GREY, ORANGE, PURPLE, STYLE
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize

SNR = 100
SHOWN = slice(2050, 2350)
COLOURS = (ORANGE, BLUE, PURPLE)


def main() -> None:
    """Write concepts.png beside this file."""
    model = load_model(REFERENCE)
    spectra, labels = _stars(model)
    embedded = model.embed(spectra)
    at_twin = spectra[1].parameters.values(model.parameter_names)[None]
    recast = model.decode(embedded[0].latent[None].astype(np.float64), at_twin)[0]
    wavelength = model.grid.wavelength[SHOWN]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 8.4), layout="constrained")
        observed, latents, recasts, residual = figure.subplots(4, 1, height_ratios=[3, 2.6, 3, 1])
        _draw_observed(observed, wavelength, spectra, labels)
        _draw_latents(latents, embedded)
        _draw_recast(recasts, residual, wavelength, spectra, recast)
        figure.savefig(Path(__file__).with_name("concepts.png"), dpi=130)


def _stars(model: Model) -> tuple[list[Spectrum], list[str]]:
    """A star, its twin and a stranger with the star's parameters; their spectra and descriptions."""
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
    kinds = ("a star", "its twin", "a stranger like it")
    return spectra, [
        f"{kind}: {survey.star_id[row]}, {u[row, 0]:.0f} K, log g {u[row, 1]:.2f}, [Fe/H] {u[row, 2]:+.2f}"
        for kind, row in zip(kinds, rows, strict=True)
    ]


def _draw_observed(axis: Axes, wavelength: Array, spectra: list[Spectrum], labels: list[str]) -> None:
    for row, (spectrum, colour) in enumerate(zip(spectra, COLOURS, strict=True)):
        flux = spectrum.flux[SHOWN] - 0.25 * row
        axis.plot(wavelength, flux, color=colour, linewidth=0.9, label=labels[row])
    axis.set(ylabel="flux, shifted", ylim=(0.1, 1.6), xlim=wavelength[[0, -1]])
    axis.set_title(
        "1. As observed, the star looks like the stranger of its own temperature, not like its twin", loc="left"
    )
    axis.legend(loc="upper left", fontsize=7.5)


def _draw_latents(axis: Axes, embedded: list[Embedding]) -> None:
    for row, (star, colour) in enumerate(zip(embedded, COLOURS, strict=True)):
        number = np.arange(len(star.latent)) + 1 + 0.16 * (row - 1)
        sd = np.sqrt(np.diag(star.covariance))
        axis.errorbar(number, star.latent, sd, fmt="o", color=colour, markersize=3.5, linewidth=1)
    distances = [np.linalg.norm(embedded[0].latent - other.latent) for other in embedded[1:]]
    axis.axhline(0, color=GREY, linewidth=0.5)
    axis.set(xlabel="number of the latent", ylabel="latent, in units of noise", xticks=range(1, 19))
    axis.set_title(
        "2. The latents agree with the twin's: distance {:.1f}, to the stranger {:.1f}".format(*distances),
        loc="left",
    )


def _draw_recast(axis: Axes, residual: Axes, wavelength: Array, spectra: list[Spectrum], recast: Array) -> None:
    star, twin = (spectrum.flux[SHOWN] for spectrum in spectra[:2])
    label = "the star, recast to the twin's parameters"
    axis.plot(wavelength, star, color=ORANGE, linewidth=0.7, alpha=0.5, label="the star")
    axis.plot(wavelength, twin, color=BLUE, linewidth=1.6, alpha=0.55, label="the twin")
    axis.plot(wavelength, recast[SHOWN], color="black", linewidth=0.8, label=label)
    limits = wavelength[[0, -1]]
    axis.set(ylabel="flux / continuum", ylim=(0.6, 1.2), xlim=limits, xticklabels=[])
    axis.set_title("3. Recast: the star as it would look at the twin's parameters", loc="left")
    axis.legend(loc="upper left", ncols=3, fontsize=7.5)
    residual.plot(wavelength, recast[SHOWN] - twin, color="black", linewidth=0.7)
    residual.axhspan(-1 / SNR, 1 / SNR, color=GREY, alpha=0.2, linewidth=0)
    residual.set(ylabel="recast - twin", xlabel="wavelength (vacuum), Å", ylim=(-0.05, 0.05), xlim=limits)


def _spectrum(survey: Survey, row: int, model: Model) -> Spectrum:
    flux = survey.flux(slice(row, row + 1))[0].astype(np.float64)
    observation = Observation(flux, Parameters(*survey.parameters[row]), np.full(len(flux), float(SNR) ** 2))
    return prepare(observation, model.grid, model.normaliser)


if __name__ == "__main__":
    main()
