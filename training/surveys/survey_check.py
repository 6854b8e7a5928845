"""Check a survey file: all problems at once, with the number and the first ids of their stars.

docs/reference/file-formats.md has the table of accepted and invalid values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.spectra.grid import Array
from model.spectra.parameters import PARAMETER_UNITS, POSSIBLE
from model.spectra.pixels import MAX_MASKED
from model.spectra.units import is_stored_unit

STARS_NAMED = 5
"""Stars that the text of a problem names."""

FLUX = -10.0, 10.0
"""Limits of normalised flux in any pixel: 9 sigma of the noise at S/N 1."""

MEAN_FLUX = 0.2, 2.0
"""Limits of a spectrum's mean flux: outside of them it is not divided by its continuum."""

OUTLIER = 10.0
"""A label this many times further out than nearly all others is a mistake, and would widen a model's range."""

ZEROS = 5
"""Pixels of exactly 0 that a spectrum may have: normalised flux is not 0, bad pixels often are."""

ANGSTROM = 2500.0, 1e6
"""Wavelengths are between these, so those in nanometres up to the K band are not."""

ABUNDANCE = 10.0
"""Largest [X/Fe] or [Fe/H], either way, dex."""

UNKNOWN = -9999
"""The number that surveys write for an unknown value, with or without decimals."""

NOISE = ("ivar", "error")
"""Datasets of what is known of each pixel's noise: inverse variance or standard deviation, 0 where masked."""

NO_GROUP = -1
"""The group of a star of which no sibling is known."""

REQUIRED = ("flux", "wavelength", "star_id", *PARAMETER_UNITS)
NUMBERS, TEXT = "fiu", "text"
KINDS = {
    "flux": "f",
    "wavelength": NUMBERS,
    "star_id": TEXT,
    **dict.fromkeys(PARAMETER_UNITS, NUMBERS),
    **dict.fromkeys((f"{name}_err" for name in PARAMETER_UNITS), NUMBERS),
    **dict.fromkeys(NOISE, "f"),
    "snr": NUMBERS,
    "twin_of": TEXT,
    "group": "iu",
    "abundances": NUMBERS,
}
"""Datasets with a meaning of their own, and the kind of their values."""

NAMES = {"f": "floating point", NUMBERS: "numbers", TEXT: TEXT, "iu": "integers"}


class Problems:
    """The problems of one survey file, collected and then raised together."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[str] = []

    def add(self, text: str) -> None:
        """One more problem, of the whole survey."""
        self._found.append(text)

    def stars(self, wrong: NDArray[np.bool_], ids: Sequence[str], text: str) -> None:
        """A problem of the stars that are `wrong` (N,), if any are."""
        if wrong.any():
            self.add(f"{text}: {named([ids[int(row)] for row in np.flatnonzero(wrong)])}")

    def raise_any(self) -> None:
        """Raise InputError with all problems, if there are any."""
        if self._found:
            lines = "".join(f"\n  {text}" for text in self._found)
            raise InputError(f"{self._path} cannot be used as a survey:{lines}", self._found)


def named(ids: Sequence[str]) -> str:
    """The number of some stars and the first ids of them."""
    more = f", and {len(ids) - STARS_NAMED} more" if len(ids) > STARS_NAMED else ""
    return f"{len(ids)} star{'s' if len(ids) > 1 else ''} ({', '.join(ids[:STARS_NAMED])}{more})"


def check_structure(file: h5py.File, path: Path) -> None:
    """Raise InputError unless datasets are there, of the right kind, and their lengths agree."""
    if missing := set(REQUIRED) - set(file):
        raise InputError(f"{path} is not a survey: it lacks {', '.join(sorted(missing))}")
    problems = Problems(path)
    for name, kind in KINDS.items():
        if name in file and not (isinstance(file[name], h5py.Dataset) and _is(file[name], kind)):
            problems.add(f"{name} is {_described(file[name])}, not {NAMES[kind]}")
    problems.raise_any()
    if file["flux"].ndim != 2 or file["flux"].shape[0] < 1 or file["flux"].shape[1] < 2:
        problems.add(f"flux is {file['flux'].shape}, not one row for each star")
        problems.raise_any()
    stars, pixels = file["flux"].shape
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(KINDS, (stars,))
    shapes |= dict.fromkeys(("flux", *NOISE), (stars, pixels)) | {"wavelength": (pixels,)}
    if "abundances" in file:
        if "names" not in file["abundances"].attrs:
            problems.add("abundances has no attribute names, one for each column")
        shapes["abundances"] = (stars, len(file["abundances"].attrs.get("names", ())))
    for name, shape in shapes.items():
        if name in file and file[name].shape != shape:
            problems.add(
                f"{name} is {file[name].shape}, not {shape}: flux has {stars} stars of {pixels} pixels"
            )
    if set(NOISE) <= set(file):
        problems.add("ivar and error are both there: one of them must go")
    problems.raise_any()


def _is(dataset: h5py.Dataset, kind: str) -> bool:
    text = h5py.check_string_dtype(dataset.dtype) is not None
    return text if kind == TEXT else not text and dataset.dtype.kind in kind


def _described(item: h5py.Dataset | h5py.Group) -> str:
    return str(item.dtype) if isinstance(item, h5py.Dataset) else "a group"


def check_wavelength(wavelength: h5py.Dataset, problems: Problems) -> None:
    """Wavelengths (P,) are finite, increasing, in vacuum and in Angstrom."""
    values, unit = wavelength[:].astype(np.float64), stated_unit(wavelength) or "Angstrom"
    if not unit.lower().startswith(("angstrom", "aa", "0.1 nm")) and unit not in ("A", "Å"):
        problems.add(f"wavelength has the unit {unit!r}: convert it to Angstrom")
    if "air" in unit.lower():
        problems.add("wavelength is in air: convert it to vacuum")
    if not np.isfinite(values).all() or np.any(np.diff(values) <= 0):
        problems.add("wavelength is not finite and strictly increasing")
    elif not ANGSTROM[0] <= values[0] < values[-1] <= ANGSTROM[1]:
        problems.add(f"wavelength is {values[0]:.6g} to {values[-1]:.6g}: not Angstrom{_guess(values)}")


def stated_unit(dataset: h5py.Dataset) -> str:
    """The unit that a dataset states, "" where it states none."""
    given = dataset.attrs.get("unit", dataset.attrs.get("units", ""))
    return (given.decode() if isinstance(given, bytes) else str(given)).strip()


def check_units(file: h5py.File, problems: Problems) -> None:
    """Labels are in K and dex, where the file says in what they are."""
    for name, unit in PARAMETER_UNITS.items():
        if not is_stored_unit(name, stated := stated_unit(file[name])):
            problems.add(f"{name} has the unit {stated!r}: convert it to {unit}")


def _guess(values: Array) -> str:
    """A guess of the wavelengths' unit, for the message."""
    for low, high, unit in (
        (3.3, 4.7, "log10 of Angstrom"),
        (7.6, 10.8, "the natural logarithm of Angstrom"),
        (0.1, 3.3, "micrometres"),
        (100.0, 2500.0, "nanometres"),
    ):
        if low <= values[0] < values[-1] <= high:
            return f", it looks like {unit}"
    return ""


def check_ids(ids: Sequence[str], problems: Problems) -> None:
    """Ids are text that can be printed, without spaces at their ends, and each is that of one star."""
    bad = [not name or name != name.strip() or not name.isprintable() or "\ufffd" in name for name in ids]
    problems.stars(np.array(bad), [repr(name) for name in ids], "star_id is empty, padded or no text")
    _, first, inverse = np.unique(np.array(ids), return_index=True, return_inverse=True)
    again = first[inverse] != np.arange(len(ids))
    problems.stars(again, ids, "star_id is that of an earlier row")


def check_labels(parameters: Array, ids: Sequence[str], problems: Problems) -> None:
    """Teff, log g and [Fe/H] (N, 3) are possible."""
    for values, (name, (low, high)) in zip(parameters.T, POSSIBLE.items(), strict=True):
        wrong = ~((low <= values) & (values <= high))
        problems.stars(wrong, ids, f"{name} is not between {low:g} and {high:g} {PARAMETER_UNITS[name]}")
        if not wrong.any():
            problems.stars(label_outliers(values), ids, f"{name} is far from all other stars'")


def check_label_errors(errors: Array, ids: Sequence[str], problems: Problems) -> None:
    """Errors (N, 3) of Teff, log g and [Fe/H] are positive and no wider than what is possible, or NaN."""
    for values, (name, (low, high)) in zip(errors.T, POSSIBLE.items(), strict=True):
        wrong = ~np.isnan(values) & ~((values >= 0) & (values <= high - low))
        problems.stars(wrong, ids, f"{name}_err is not between 0 and {high - low:g}, nor NaN (not known)")


def label_outliers(values: Array) -> NDArray[np.bool_]:
    """Which values (N,) lie further from the median than `OUTLIER` times half the range of 90 % of them."""
    low, median, high = np.percentile(values, (5, 50, 95))
    return np.asarray((high > low) & (np.abs(values - median) > OUTLIER * (high - low) / 2))


def check_twins(
    twin: NDArray[np.int64], group: NDArray[np.int64] | None, ids: Sequence[str], problems: Problems
) -> None:
    """Rows of twins (N,), -1 for an id that the survey does not have, are mutual, and of one `group` (N,)."""
    rows = np.arange(len(twin))
    problems.stars(twin < 0, ids, "twin_of is no star of the survey")
    problems.stars(twin == rows, ids, "twin_of is the star itself")
    problems.stars((twin >= 0) & (twin != rows) & (twin[twin] != rows), ids, "the twin has another twin_of")
    if group is not None:
        problems.stars((twin >= 0) & (group[twin] != group), ids, "the twin is of another group")


class FluxCheck:
    """Checks a survey's flux block by block, and writes the digest of each spectrum into `digests` (N,)."""

    def __init__(self, digests: NDArray[np.uint64]) -> None:
        self._digests = digests
        self._wrong = np.zeros((4, len(digests)), dtype=np.bool_)

    def block(self, rows: slice, flux: NDArray[np.float32]) -> None:
        """Check the flux (n, P) of some rows."""
        low, high, mean = flux.min(axis=1), flux.max(axis=1), flux.mean(axis=1, dtype=np.float64)
        unknown = ~np.isfinite(low) | ~np.isfinite(high)
        beyond = ~unknown & ((low < FLUX[0]) | (high > FLUX[1]))
        scale = ~unknown & ~beyond & ((mean < MEAN_FLUX[0]) | (mean > MEAN_FLUX[1]))
        zero = np.count_nonzero(flux == 0, axis=1) > ZEROS
        self._wrong[:, rows] = unknown, zero, beyond, scale & ~zero
        self._digests[rows] = _digests(flux)

    def report(self, ids: Sequence[str], problems: Problems) -> None:
        """Add the problems found to `problems`."""
        fill = "fill bad pixels in, with a fit of the others or the mean spectrum"
        texts = (
            f"flux is not finite ({fill})",
            f"flux is exactly 0 in more than {ZEROS} pixels ({fill})",
            f"flux is not between {FLUX[0]:g} and {FLUX[1]:g} (divide by the continuum, {fill})",
            f"mean flux is not between {MEAN_FLUX[0]:g} and {MEAN_FLUX[1]:g} (divide by the continuum)",
        )
        for wrong, text in zip(self._wrong, texts, strict=True):
            problems.stars(wrong, ids, text)


class NoiseCheck:
    """Checks inverse variances block by block; writes masked fraction and digest of each into arrays (N,)."""

    def __init__(self, masked: Array, digests: NDArray[np.uint64]) -> None:
        self._unknown, self._masked, self._digests = np.zeros(len(masked), np.bool_), masked, digests

    def block(self, rows: slice, ivar: NDArray[np.float32]) -> None:
        """Check the inverse variances (n, P) of some rows."""
        self._unknown[rows] = ~np.isfinite(ivar).all(axis=1) | (ivar < 0).any(axis=1)
        self._masked[rows] = np.mean(ivar == 0, axis=1)
        self._digests[rows] = _digests(ivar)

    def report(self, name: str, ids: Sequence[str], problems: Problems) -> None:
        """Add the problems found to `problems`."""
        problems.stars(self._unknown, ids, f"{name} is negative or not finite (0 masks a pixel)")
        problems.stars(self._masked > MAX_MASKED, ids, f"more than {MAX_MASKED:.0%} of the pixels are masked")


def _digests(spectra: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The digest (n,) of each row of `spectra` (n, P)."""
    digests = [hashlib.blake2b(spectrum.tobytes(), digest_size=8).digest() for spectrum in spectra]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def check_column(path: Path, name: str, values: Array, ids: Sequence[str], limit: float) -> None:
    """Raise InputError unless values (N,) or (N, E) are finite, known and at most `limit` either way."""
    unknown = ~np.isfinite(values) | (np.trunc(values) == UNKNOWN)
    problems = Problems(path)
    for wrong, text in (
        (unknown, f"{name} is not finite, or {UNKNOWN}"),
        (~unknown & (np.abs(values) > limit), f"{name} is not between {-limit:g} and {limit:g}"),
    ):
        problems.stars(wrong.reshape(len(ids), -1).any(axis=1), ids, text)
    problems.raise_any()
