"""The HDF5 file of a survey of spectra."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.errors import InputError
from model.spectra.grid import Array, Grid, apogee_wavelength
from model.spectra.parameters import MAX_EXTRA, PARAMETER_UNITS, may_name_parameter
from model.spectra.pixels import ivar_of
from training.random_streams import Stream, generator
from training.surveys.survey_check import (
    ABUNDANCE,
    NO_GROUP,
    NOISE,
    FluxCheck,
    NoiseCheck,
    Problems,
    check_column,
    check_ids,
    check_label_errors,
    check_labels,
    check_structure,
    check_twins,
    check_units,
    check_wavelength,
)

BLOCK_STARS = 512
SLOW = 2.0
"""Seconds that the check of a survey takes before its progress is shown."""

OWN_FE_H = "[X/Fe]"
"""Attribute `shared` of a survey whose twins have the same [X/Fe] but differ in [Fe/H]."""


def add_noise(
    flux: NDArray[np.float32], snr: float, stream: Stream, *keys: int, seed: int | None = None
) -> NDArray[np.float32]:
    """Flux (N, P) with Gaussian noise of standard deviation 1 / `snr`; stream, keys and seed fix the draw."""
    if np.isinf(snr):
        return flux
    random = generator(stream, *keys, seed=seed)
    return flux + random.standard_normal(flux.shape, dtype=np.float32) / np.float32(snr)


@dataclass(frozen=True)
class Survey:
    """A survey file, checked when it is opened; fluxes are read block by block.

    Attributes
    ----------
    path : Path
        The file.
    wavelength : array (P,)
        Angstrom, in vacuum.
    star_id : list of str
        The N stars' ids.
    parameters : array (N, 3)
        Teff (K), log g and [Fe/H] (dex).
    snr : array (N,)
        S/N per pixel: infinite without noise, NaN where unknown.
    twin : array of int (N,) or None
        The row of each star's twin.
    group : array of int (N,) or None
        The number of each star's chemistry; -1 where no sibling is known.
    own_fe_h : bool
        Whether twins differ in [Fe/H].
    seed : int or None
        The seed of a synthetic survey.
    extra : tuple of str
        The file's extra datasets of one number per star, which any model may be conditioned on.
    digests : array of uint64 (N,)
        Digests of the stars' fluxes.
    pixels : array of int (P,) or None
        The file's pixels that are used; None for all.
    errors : array (N, 3)
        The 1-sigma errors of `parameters`; NaN where not known.
    noise : str or None
        The dataset of the pixels' noise: ``ivar`` or ``error``, or else ``snr`` where it is known of all stars;
        None for complete spectra without noise.
    masked : array (N,)
        The fraction of each star's pixels that are masked.
    noise_digests : array of uint64 (N,)
        Digests of the stars' inverse variances, 0 without ``ivar`` or ``error``.
    """

    path: Path
    wavelength: NDArray[np.float64]
    star_id: list[str]
    parameters: NDArray[np.float64]
    snr: NDArray[np.float64]
    twin: NDArray[np.int64] | None
    group: NDArray[np.int64] | None
    own_fe_h: bool
    seed: int | None
    extra: tuple[str, ...]
    digests: NDArray[np.uint64]
    pixels: NDArray[np.intp] | None
    errors: NDArray[np.float64]
    noise: str | None
    masked: NDArray[np.float64]
    noise_digests: NDArray[np.uint64]

    @classmethod
    def open(cls, path: Path) -> Survey:
        """Read everything but the fluxes, which are checked in one pass, behind a progress bar if it is long.

        APOGEE's 8,575 pixels are cut to the 7,514 of its detectors, as the models have them.

        Raises
        ------
        InputError
            Naming all that is wrong, with number and first ids of the stars: docs/reference/file-formats.md.
        """
        if not h5py.is_hdf5(path):
            raise InputError(f"{path} is not a survey: it is not an HDF5 file")
        with h5py.File(path, "r") as file:
            check_structure(file, path)
            wavelength, pixels = file["wavelength"][:].astype(np.float64), None
            if Grid(apogee_wavelength()).is_own(wavelength, len(wavelength)):
                pixels = Grid.apogee().apogee_pixels
            ids = file["star_id"].asstr(errors="replace")[:].tolist()
            snr = _snr(file, len(ids))
            survey = cls(
                path=path,
                wavelength=wavelength if pixels is None else wavelength[pixels],
                star_id=ids,
                parameters=np.stack([file[name][:] for name in PARAMETER_UNITS], axis=1).astype(np.float64),
                snr=snr,
                twin=_rows_of(file["twin_of"].asstr(errors="replace")[:], ids) if "twin_of" in file else None,
                group=file["group"][:].astype(np.int64) if "group" in file else None,
                own_fe_h=file.attrs.get("shared") == OWN_FE_H,
                seed=int(file.attrs["seed"]) if "seed" in file.attrs else None,
                extra=tuple(name for name in file if _is_extra(name, file[name], len(ids))),
                digests=np.zeros(len(ids), dtype=np.uint64),
                pixels=pixels,
                errors=_label_errors(file, len(ids)),
                noise=_noise(file, snr),
                masked=np.zeros(len(ids)),
                noise_digests=np.zeros(len(ids), dtype=np.uint64),
            )
            problems = Problems(path)
            check_wavelength(file["wavelength"], problems)
            check_units(file, problems)
        survey._check(problems)
        return survey

    def _check(self, problems: Problems) -> None:
        """Check labels and fluxes, and digest the fluxes. Raises InputError for the `problems` of all."""
        check_ids(self.star_id, problems)
        check_labels(self.parameters, self.star_id, problems)
        check_label_errors(self.errors, self.star_id, problems)
        if self.twin is not None and len(set(self.star_id)) == len(self):
            check_twins(self.twin, self.group, self.star_id, problems)
        if self.group is not None:
            problems.stars(self.group < NO_GROUP, self.star_id, f"group is below {NO_GROUP}")
        fluxes, noise = FluxCheck(self.digests), NoiseCheck(self.masked, self.noise_digests)
        for rows, flux in self.blocks(f"check {self.path.name}", delay=SLOW):
            fluxes.block(rows, flux)
            if self.noise in NOISE:
                noise.block(rows, self.ivar(rows))
        fluxes.report(self.star_id, problems)
        if self.noise in NOISE:
            noise.report(self.noise, self.star_id, problems)
        problems.raise_any()

    def __len__(self) -> int:
        return len(self.star_id)

    def column(self, name: str) -> Array:
        """One number per star (N,): teff, logg, fe_h or any of `extra`.

        Raises InputError for any other, and where it is not known for every star.
        """
        if name in PARAMETER_UNITS:
            return self.parameters[:, list(PARAMETER_UNITS).index(name)]
        if name not in self.extra:
            has = ", ".join((*PARAMETER_UNITS, *self.extra))
            raise InputError(f"{self.path} lacks {name}, one number per star: it has {has}")
        with h5py.File(self.path, "r") as file:
            values = file[name][:].astype(np.float64)
        check_column(self.path, name, values, self.star_id, MAX_EXTRA)
        return np.asarray(values)

    def abundances(self) -> tuple[list[str], Array]:
        """Elements, and their [X/Fe] (N, E) in dex. Raises InputError where they are not known."""
        with h5py.File(self.path, "r") as file:
            if "abundances" not in file:
                raise InputError(f"{self.path} holds no abundances")
            names = [str(name) for name in file["abundances"].attrs["names"]]
            values = file["abundances"][:].astype(np.float64)
        check_column(self.path, "abundances", values, self.star_id, ABUNDANCE)
        return names, values

    def check_grid(self, grid: Grid) -> None:
        """Raise InputError unless the survey's pixels are those of `grid`, a model's."""
        if not grid.is_own(self.wavelength, len(self.wavelength)):
            own, wanted = self.wavelength, grid.wavelength
            raise InputError(
                f"{self.path} is not on the model's wavelength grid: it has {len(own)} pixels from "
                f"{own[0]:.2f} to {own[-1]:.2f} Angstrom, the model {len(wanted)} from {wanted[0]:.2f} to "
                f"{wanted[-1]:.2f}. "
                "Resample its spectra to the model's wavelengths, or train a model on its own"
            )

    def check_noiseless(self) -> None:
        """Raise InputError unless the survey is known to be without noise."""
        if not np.isposinf(self.snr).all():
            raise InputError(f"{self.path} has noise of its own: draw it without --snr, evaluation adds noise")
        if self.group is not None and (self.group == NO_GROUP).any():
            raise InputError(f"{self.path} has stars of no group: evaluation takes the siblings of every star")

    def units(self, names: Sequence[str]) -> dict[str, str]:
        """The units that the file gives for those of `names` that are in `extra`."""
        with h5py.File(self.path, "r") as file:
            units = {name: file[name].attrs.get("unit", "") for name in names if name in self.extra}
        return {name: unit.decode() if isinstance(unit, bytes) else str(unit) for name, unit in units.items()}

    def identity(self) -> str:
        """A digest of all that training or evaluation reads, which identifies the survey.

        Errors of pixels and labels count where there are any: a survey with neither has the identity that
        models made before recorded.
        """
        digest = hashlib.sha256("\n".join(self.star_id).encode())
        arrays = [self.parameters, self.snr, self.wavelength, self.digests]
        for values in (*arrays, *(kind for kind in (self.twin, self.group) if kind is not None)):
            digest.update(np.ascontiguousarray(values).tobytes())
        with h5py.File(self.path, "r") as file:
            for name in self.extra:
                digest.update(name.encode() + file[name][:].tobytes())
        if self.noise in NOISE:
            digest.update(self.noise_digests.tobytes())
        if np.isfinite(self.errors).any():
            digest.update(self.errors.tobytes())
        return digest.hexdigest()[:16]

    def flux(self, rows: slice) -> NDArray[np.float32]:
        """Flux (n, P) of some rows."""
        with h5py.File(self.path, "r") as file:
            return self._read(file, rows)

    def ivar(self, rows: slice) -> NDArray[np.float32]:
        """Inverse variance (n, P) of some rows' flux, 0 where masked. Raises InputError without `noise`."""
        if self.noise is None:
            raise InputError(f"{self.path} has no errors of its pixels: neither ivar nor error, and no S/N")
        if self.noise == "snr":
            return np.broadcast_to(
                np.square(self.snr[rows, None], dtype=np.float32), (len(self.snr[rows]), len(self.wavelength))
            )
        with h5py.File(self.path, "r") as file:
            values = file[self.noise][rows]
        values = values if self.pixels is None else values[:, self.pixels]
        return np.asarray(ivar_of(values) if self.noise == "error" else values, np.float32)

    def blocks(
        self, description: str, size: int = BLOCK_STARS, delay: float = 0.0
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Rows and flux (n, P) of the survey, block by block, behind a progress bar shown after `delay` s."""
        with (
            h5py.File(self.path, "r") as file,
            tqdm(total=len(self), unit="star", desc=description, delay=delay, disable=None) as bar,
        ):
            for start in range(0, len(self), size):
                rows = slice(start, min(start + size, len(self)))
                yield rows, self._read(file, rows)
                bar.update(rows.stop - rows.start)

    def _read(self, file: h5py.File, rows: slice) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            flux = file["flux"][rows].astype(np.float32, copy=False)
        return np.asarray(flux if self.pixels is None else flux[:, self.pixels])


def _snr(file: h5py.File, stars: int) -> Array:
    """S/N (N,) of the stars: infinite without noise, NaN where unknown."""
    snr = file["snr"][:].astype(np.float64) if "snr" in file else np.full(stars, np.inf)
    return np.where(snr > 0, snr, np.nan)


def _noise(file: h5py.File, snr: Array) -> str | None:
    """The dataset of the pixels' noise, None without one; `snr` (N,) is that of the stars."""
    known = len(snr) > 0 and bool(np.isfinite(snr).all())
    return next((name for name in NOISE if name in file), "snr" if known else None)


def _label_errors(file: h5py.File, stars: int) -> Array:
    """The errors (N, 3) of the labels, NaN where the file has none."""
    unknown = np.full(stars, np.nan)
    names = [f"{name}_err" for name in PARAMETER_UNITS]
    return np.stack([file[name][:] if name in file else unknown for name in names], axis=1).astype(np.float64)


def _rows_of(wanted: Sequence[str], ids: Sequence[str]) -> NDArray[np.int64]:
    """The rows (n,) of `wanted` stars among `ids`, -1 for one that is not there."""
    row = {star_id: i for i, star_id in enumerate(ids)}
    return np.array([row.get(star_id, -1) for star_id in wanted], dtype=np.int64)


def _is_extra(name: str, item: h5py.Dataset | h5py.Group, stars: int) -> bool:
    """Whether an item is a dataset of one number per star that a model may be conditioned on."""
    return (
        isinstance(item, h5py.Dataset)
        and item.shape == (stars,)
        and item.dtype.kind in "iuf"
        and name not in PARAMETER_UNITS
        and may_name_parameter(name)
    )
