"""Repeat observations of real stars: `p_same` between visits of a star, its files, and different stars.

    chemtwin lab visits model.safetensors stars.csv

The CSV has columns star, file, teff, logg, fe_h, one line for a file; file names are relative to the CSV's
folder, and empty labels are taken from the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from model.errors import InputError
from model.methods.base import Embedding, Model
from model.similarity.p_same import p_same
from model.spectra.apogee import FIRST_VISIT, read_fits
from model.spectra.parameters import PARAMETER_UNITS, Parameters
from model.spectra.spectrum import Observation, Spectrum, prepare
from model.spectra.star_file import StarFile
from training.reports.markdown import table
from training.surveys.csv_file import Line, read_csv

COMBINED, VISIT = "combined", "visit"


@dataclass(frozen=True)
class EmbeddedSpectrum:
    """One embedded spectrum of a star: `name` says which, `part` is "combined" or "visit"."""

    star: str
    name: str
    part: str
    spectrum: Spectrum
    embedding: Embedding


@dataclass(frozen=True)
class Pair:
    """Two spectra, their latent distance and `p_same`, None for a model without a twin covariance."""

    what: str
    first: EmbeddedSpectrum
    second: EmbeddedSpectrum
    distance: float
    p_same: float | None


def read_stars(path: Path, model: Model) -> list[EmbeddedSpectrum]:
    """Embed every spectrum of the files in a CSV: combined ones and an apStar's visits.

    Raises InputError for a CSV without a column or a label, ChemtwinError for a file that cannot be used.
    """
    lines = read_csv(path, ("star", "file", *PARAMETER_UNITS))
    return [spectrum for line in lines for spectrum in _spectra_of(line, path, model)]


def _spectra_of(given_line: Line, path: Path, model: Model) -> Iterator[EmbeddedSpectrum]:
    line = given_line.cells
    content = (path.parent / line["file"]).read_bytes()
    combined = read_fits(content)
    given = {name: given_line.number_of(name, path) for name in PARAMETER_UNITS if line[name]}
    labels = {**combined.labels, **given}
    if absent := sorted(set(PARAMETER_UNITS) - set(labels)):
        raise InputError(f"{line['file']} gives no {', '.join(absent)}, and neither does the table")
    parameters = Parameters(labels["teff"], labels["logg"], labels["fe_h"])
    yield _embedded(line["star"], combined.kind, COMBINED, combined, parameters, model)
    if combined.kind == "apStar":
        for row in range(FIRST_VISIT, combined.rows):
            name = f"{combined.kind} visit {row - FIRST_VISIT + 1}"
            yield _embedded(line["star"], name, VISIT, read_fits(content, row=row), parameters, model)


def _embedded(
    star: str, name: str, part: str, file: StarFile, parameters: Parameters, model: Model
) -> EmbeddedSpectrum:
    observation = Observation(file.flux, parameters, file.ivar, file.bad, file.wavelength, file.normalized)
    spectrum = prepare(observation, model.grid, model.normaliser)
    return EmbeddedSpectrum(star, name, part, spectrum, model.embed([spectrum])[0])


def compare(spectra: list[EmbeddedSpectrum], model: Model) -> list[Pair]:
    """All pairs of one star's visits, of its combined spectra, and of different stars' combined spectra."""
    pairs = []
    for first, second in combinations(spectra, 2):
        same = first.star == second.star
        if first.part != second.part or (not same and first.part == VISIT):
            continue
        what = "different stars" if not same else "visits" if first.part == VISIT else "files"
        pairs.append(_pair(what, first, second, model))
    return pairs


def _pair(what: str, first: EmbeddedSpectrum, second: EmbeddedSpectrum, model: Model) -> Pair:
    """`p_same` from both noises and the covariance of twins, as the service has it."""
    left, right = first.embedding, second.embedding
    distance = float(np.linalg.norm(left.latent.astype(np.float64) - right.latent))
    if left.covariance is None or right.covariance is None:
        return Pair(what, first, second, distance, None)
    covariance = model.pair_covariance(
        left.covariance[None].astype(np.float64), right.covariance[None].astype(np.float64)
    )
    if covariance is None:
        return Pair(what, first, second, distance, None)
    return Pair(what, first, second, distance, float(p_same(np.array([distance]), covariance)[0]))


def visits(path: Path, model: Model) -> str:
    """A report in Markdown: every spectrum of the stars in a CSV, and the pairs among them."""
    embedded = read_stars(path, model)
    spectra = [
        [
            each.star,
            each.name,
            f"{each.spectrum.snr:.0f}",
            f"{each.spectrum.masked_fraction:.1%}",
            f"{each.embedding.chi2:.1f}",
            "yes" if each.embedding.in_domain else "no",
        ]
        for each in embedded
    ]
    pairs = [
        [
            pair.what,
            f"{pair.first.star} {pair.first.name}",
            f"{pair.second.star} {pair.second.name}",
            f"{pair.distance:.2f}",
            "-" if pair.p_same is None else f"{pair.p_same:.2g}",
        ]
        for pair in sorted(compare(embedded, model), key=lambda pair: pair.what, reverse=True)
    ]
    return "\n\n".join(
        [
            "# Real stars",
            f"Embedded by {model.card.identity}.",
            "## Spectra",
            table(["star", "spectrum", "S/N", "masked", "chi2", "in domain"], spectra),
            "## Pairs",
            table(["pair", "first", "second", "distance", "p_same"], pairs),
        ]
    )
