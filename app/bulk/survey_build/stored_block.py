"""A block of spectra that was read: a file of its own in the working folder of a build.

A build that was stopped finds the blocks that are complete and reads only the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from app.bulk.survey_build.flags import ChosenFlags
from app.bulk.survey_build.inputs import Block
from app.bulk.survey_build.read_spectra import FoundSpectrum, SpectrumReader
from app.bulk.survey_build.refused import RefusedSpectrum
from app.bulk.survey_build.star_labels import StarLabels
from app.settings import Settings
from model.bundle import load_model
from model.errors import ChemtwinError
from model.methods.base import Model
from model.spectra.parameters import PARAMETER_UNITS
from model.spectra.pixels import MAX_MASKED
from model.spectra.spectrum import POSSIBLE_SNR, Spectrum, prepare_all
from training.surveys.survey_check import FLUX, MEAN_FLUX

LABEL_COLUMNS = (*PARAMETER_UNITS, *(f"{name}_err" for name in PARAMETER_UNITS))
NUMBERS = (*LABEL_COLUMNS, "ra", "dec", "snr")
TEXTS = ("name", "star_id", "reason", "text", "cluster", "warnings")


@dataclass(frozen=True)
class BuildOptions:
    """What a worker needs to know to read blocks.

    Attributes
    ----------
    folder, work
        The folder of the spectra, and the working folder.
    labels
        The table of labels, None where the files have them.
    flags
        The flags that exclude a star.
    min_snr
        The lowest S/N.
    settings
        They name the model whose grid and continuum are used, and the bad bits of masks.
    """

    folder: Path
    work: Path
    labels: Path | None
    flags: ChosenFlags
    min_snr: float
    settings: Settings

    def path(self, block: Block) -> Path:
        """Where a block is stored."""
        return self.work / f"{block.number:06d}.npz"


def read_block(options: BuildOptions, block: Block) -> int:
    """Read and store a block, unless it is stored; returns the number of its spectra."""
    path = options.path(block)
    if not path.exists():
        model, reader = opened(options)
        columns = _columns(model, list(reader.read(block)), options.min_snr)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]
        partial.replace(path)
    return len(block)


@lru_cache(maxsize=1)
def opened(options: BuildOptions) -> tuple[Model, SpectrumReader]:
    """What a worker uses for all its blocks; it has one thread, for it has a core."""
    threadpool_limits(1)
    labels = None if options.labels is None else StarLabels(options.labels, options.flags)
    reader = SpectrumReader(options.folder, labels, options.settings, options.min_snr)
    return load_model(options.settings.model), reader


def _columns(
    model: Model, found: Sequence[tuple[str, FoundSpectrum | RefusedSpectrum]], min_snr: float
) -> dict[str, NDArray[Any]]:
    """The arrays to store: one entry a spectrum, flux and ivar of those only that can be used."""
    usable = [one for _, one in found if isinstance(one, FoundSpectrum)]
    prepared = iter(prepare_all([one.observation for one in usable], model.grid, model.normaliser))
    numbers = {name: np.full(len(found), np.nan) for name in NUMBERS}
    texts: dict[str, list[str]] = {name: [] for name in TEXTS}
    rows, digests, fluxes, ivars = [], [], [], []
    for index, (name, one) in enumerate(found):
        result: Spectrum | RefusedSpectrum = (
            one if isinstance(one, RefusedSpectrum) else _checked(next(prepared), min_snr)
        )
        reason = text = cluster = warnings = ""
        digest = 0
        if isinstance(result, RefusedSpectrum):
            reason, text = result.reason, result.text
        else:
            assert isinstance(one, FoundSpectrum)
            text = "; ".join((*one.warnings, *result.warnings))
            cluster, warnings = one.cluster, "\n".join(one.warnings)
            flux, ivar = _written(result)
            digest = int.from_bytes(blake2b(flux.tobytes() + ivar.tobytes(), digest_size=8).digest(), "little")
            fluxes.append(flux)
            ivars.append(ivar)
            for column, value in _numbers(one, result).items():
                numbers[column][index] = value
        rows.append(one.row)
        digests.append(digest)
        for column, cell in zip(TEXTS, (name, one.star_id, reason, text, cluster, warnings), strict=True):
            texts[column].append(cell)
    pixels = np.zeros((0, len(model.grid)), np.float32)
    return {
        **{name: np.array([value.encode() for value in values], "S") for name, values in texts.items()},
        **numbers,
        "row": np.array(rows, np.int64),
        "digest": np.array(digests, np.uint64),
        "flux": np.array(fluxes or pixels),
        "ivar": np.array(ivars or pixels),
    }


def _checked(prepared: Spectrum | ChemtwinError, min_snr: float) -> Spectrum | RefusedSpectrum:
    """A prepared spectrum, if a survey can have it."""
    if isinstance(prepared, ChemtwinError):
        return RefusedSpectrum("spectrum", str(prepared))
    if prepared.snr is None:
        return RefusedSpectrum("no_errors", "neither errors nor inverse variances came with the flux")
    low, high = POSSIBLE_SNR
    if not low <= prepared.snr <= high:
        return RefusedSpectrum("spectrum", f"S/N {prepared.snr:.3g} is not between {low:g} and {high:g}")
    if prepared.snr < min_snr:
        return RefusedSpectrum("snr", f"S/N {prepared.snr:.3g} by the spectrum's own errors")
    flux, ivar = _written(prepared)
    if np.mean(ivar == 0) > MAX_MASKED:
        return RefusedSpectrum("spectrum", f"more than {MAX_MASKED:.0%} of its pixels are masked")
    if not MEAN_FLUX[0] <= (mean := float(flux.mean())) <= MEAN_FLUX[1]:
        return RefusedSpectrum("spectrum", f"its mean flux over the continuum is {mean:.3g}")
    return prepared


def _written(spectrum: Spectrum) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Flux and inverse variance (P,), 1 and 0 in masked pixels."""
    ivar = np.where(np.abs(spectrum.flux) > FLUX[1], 0.0, spectrum.ivar).astype(np.float32)
    return np.where(ivar > 0, spectrum.flux, 1.0).astype(np.float32), ivar


def _numbers(found: FoundSpectrum, spectrum: Spectrum) -> dict[str, float]:
    """The numbers of a star, without those that are not known."""
    parameters, known = spectrum.parameters, {"snr": spectrum.snr, "ra": found.ra, "dec": found.dec}
    known |= {name: parameters.value(name) for name in PARAMETER_UNITS}
    known |= {f"{name}_err": parameters.error(name) for name in PARAMETER_UNITS}
    return {name: value for name, value in known.items() if value is not None}
