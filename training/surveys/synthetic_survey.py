"""Synthetic surveys of twins, as in the paper's section 4.1, drawn by the emulator."""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_uppercase

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.stats import truncnorm
from tqdm import tqdm

from model.errors import InputError
from model.spectra.grid import Array, Grid
from model.spectra.parameters import PARAMETER_UNITS
from training.emulator.broadening import broaden
from training.emulator.emulator import CARBON_LIMIT, Emulator
from training.random_streams import Stream, generator
from training.surveys.branch import draw_branch_labels
from training.surveys.chemistry import Chemistry
from training.surveys.observed_effects import (
    noise_patterns,
    observe,
    observed_labels,
    observed_snr,
    observed_velocities,
)
from training.surveys.paper_tables import TABLE_1, TABLE_2
from training.surveys.survey import BLOCK_STARS, OWN_FE_H, add_noise

CLUSTER_MEMBERS = 3, 15
"""Least and greatest number of stars of a cluster."""


def draw_labels(
    groups: int,
    seed: int,
    names: tuple[str, ...],
    lo: NDArray[np.float64],
    hi: NDArray[np.float64],
    *,
    members: int = 2,
    own_fe_h: bool = False,
    chemistry: Chemistry | None = None,
    stream: Stream = Stream.SURVEY_LABELS,
) -> NDArray[np.float64]:
    """Draw the labels of groups of twins.

    Parameters
    ----------
    groups : int
        Number of groups.
    seed : int
        Seed of the random numbers.
    names : tuple of str
        The L labels.
    lo, hi : array (L,)
        The box that labels are truncated to.
    members : int
        Stars of a group, in neighbouring rows.
    own_fe_h : bool
        Members have equal [X/Fe], but each its own [Fe/H].
    chemistry : Chemistry, optional
        The distribution to draw from, within table 1 and the box; by default the paper's tables.
    stream : Stream
        The stream of random numbers.

    Returns
    -------
    array (groups * members, L)
        Labels: K and dex.

    Raises
    ------
    InputError
        For `own_fe_h` with a `chemistry`, whose [X/Fe] depend on [Fe/H].
    """
    random = generator(stream, seed=seed)
    if chemistry is None:
        return _draw_tables(random, groups, members, names, lo, hi, own_fe_h)
    if own_fe_h:
        raise InputError("real [X/Fe] depend on [Fe/H]: stars of one [X/Fe] cannot have their own [Fe/H]")
    lo, hi = lo.copy(), hi.copy()
    for name, (low, high) in TABLE_1.items():
        column = names.index(name)
        lo[column], hi[column] = max(lo[column], low), min(hi[column], high)
    return chemistry.draw(random, groups, members, names, lo, hi)


def _draw_tables(
    random: np.random.Generator,
    groups: int,
    members: int,
    names: tuple[str, ...],
    lo: NDArray[np.float64],
    hi: NDArray[np.float64],
    own_fe_h: bool,
) -> NDArray[np.float64]:
    """Labels (groups * members, L) by the paper's tables.

    Teff and logg are uniform over table 1, each star its own; [Fe/H] and [X/Fe] are table 2's independent
    Gaussians, truncated. [C/Fe], which the tables do not list, is 0, so [O/Fe] is cut at -CARBON_LIMIT.
    """
    stars = groups * members
    labels = np.zeros((stars, len(names)))
    for column, name in enumerate(names):
        if name in TABLE_1:
            labels[:, column] = random.uniform(*TABLE_1[name], size=stars)
        elif name in TABLE_2:
            mean, sd = TABLE_2[name]
            low = max(lo[column], -CARBON_LIMIT) if name == "O" else lo[column]
            own = own_fe_h and name == "fe_h"
            uniform = random.uniform(size=stars if own else groups)
            chosen = mean + sd * truncnorm.ppf(uniform, (low - mean) / sd, (hi[column] - mean) / sd)
            labels[:, column] = chosen if own else np.repeat(chosen, members)
    return labels


def synthesize(
    path: Path,
    emulator: Emulator,
    groups: int,
    seed: int,
    snr: float = np.inf,
    *,
    members: int = 2,
    own_fe_h: bool = False,
    chemistry: Chemistry | None = None,
    branch: bool = False,
    broadening: tuple[float, float] | None = None,
    clusters: int = 0,
    observed: bool = False,
    unmasked: bool = False,
) -> None:
    """Draw a survey of groups of twins into an HDF5 file. The same seed gives the same file.

    Parameters
    ----------
    path : Path
        The file to write.
    emulator : Emulator
        Gives the spectra, normalised by the true continuum.
    groups : int
        Number of groups.
    seed : int
        Seed of all random numbers.
    snr : float
        Gaussian noise of standard deviation 1 / `snr` is added to every pixel (paper, section 4.2).
    members : int
        Stars of a group. Their ids are SYN-<seed>-<group>A, B and so on; pairs get `twin_of`.
    own_fe_h : bool
        Members have equal [X/Fe], but each its own [Fe/H]; otherwise all abundances are equal.
    chemistry : Chemistry, optional
        The distribution of labels, by default the paper's or that of `draw_branch_labels`.
    branch : bool
        Fill the giant branch instead of the paper's ranges of Teff and log g.
    broadening : (float, float), optional
        Least and greatest standard deviation (km/s) of the Gaussian that widens a star's lines, in `vbroad`.
    clusters : int
        So many groups more, of `CLUSTER_MEMBERS` stars each, with a name under `cluster`.
    observed : bool
        Observe the stars as APOGEE does (`training.surveys.observed_effects`), at `snr` or drawn S/N if that
        is infinite; labels have errors.
    unmasked : bool
        With `observed`: mask no pixel.

    Raises
    ------
    InputError
        For a `broadening` that does not rise from 0, or `clusters` with `branch` or `own_fe_h`.
    """
    sizes, labels = _draw_stars(emulator, groups, seed, members, own_fe_h, chemistry, branch, clusters)
    vbroad = None if broadening is None else _draw_broadening(broadening, seed, len(labels))
    partial = path.with_name(path.name + ".partial")
    with h5py.File(partial, "w") as file:
        file.attrs.update(_attributes(emulator, seed, snr, own_fe_h, chemistry, branch, observed))
        _write_stars(file, emulator, labels, vbroad, sizes, seed)
        if clusters:
            names = [*[""] * groups, *(f"SYN-{seed}-cluster-{i}" for i in range(clusters))]
            file["cluster"] = np.repeat(np.array(names, dtype="S64"), sizes)
        patterns = noise_patterns(Grid(emulator.wavelength), unmasked) if observed else None
        _write_observations(file, emulator, labels, vbroad, snr, patterns, seed)
    partial.replace(path)


def _attributes(
    emulator: Emulator,
    seed: int,
    snr: float,
    own_fe_h: bool,
    chemistry: Chemistry | None,
    branch: bool,
    observed: bool,
) -> dict[str, object]:
    """The attributes of a survey's file: how it was drawn."""
    usual = "branch" if branch else "paper"
    return {
        "kind": "synthetic twin survey",
        "seed": seed,
        **({} if observed else {"snr": snr}),
        "continuum": "with errors" if observed else "true",
        "shared": OWN_FE_H if own_fe_h else "[Fe/H] and [X/Fe]",
        "chemistry": usual if chemistry is None else json.dumps(chemistry.provenance),
        "emulator": json.dumps(emulator.provenance),
    }


def _draw_stars(
    emulator: Emulator,
    groups: int,
    seed: int,
    members: int,
    own_fe_h: bool,
    chemistry: Chemistry | None,
    branch: bool,
    clusters: int,
) -> tuple[NDArray[np.int64], Array]:
    """The sizes (G,) of all groups, clusters last, and the labels (N, L) of their stars.

    Raises InputError for `clusters` with `branch` or `own_fe_h`.
    """
    if clusters and (branch or own_fe_h):
        raise InputError(
            "clusters are drawn in the paper's ranges of Teff and log g, and their stars share all abundances: "
            "not along the branch, and not with own [Fe/H]"
        )
    sizes = np.concatenate([np.full(groups, members), _cluster_sizes(clusters, seed)])
    if branch:
        return sizes, draw_branch_labels(
            groups, seed, emulator, members=members, own_fe_h=own_fe_h, chemistry=chemistry
        )
    box = (emulator.labels, emulator.lo, emulator.hi)
    labels = draw_labels(groups, seed, *box, members=members, own_fe_h=own_fe_h, chemistry=chemistry)
    return sizes, np.concatenate([labels, _cluster_labels(sizes[groups:], seed, *box, chemistry)])


def _cluster_sizes(clusters: int, seed: int) -> NDArray[np.int64]:
    """Numbers of members (C,) of clusters."""
    low, high = CLUSTER_MEMBERS
    return generator(Stream.CLUSTER_LABELS, 0, seed=seed).integers(low, high + 1, size=clusters)


def _cluster_labels(
    sizes: NDArray[np.int64],
    seed: int,
    names: tuple[str, ...],
    lo: Array,
    hi: Array,
    chemistry: Chemistry | None,
) -> Array:
    """Labels (N, L) of the members of clusters of these sizes (C,)."""
    if not len(sizes):
        return np.zeros((0, len(names)))
    most = CLUSTER_MEMBERS[1]
    drawn = draw_labels(
        len(sizes), seed, names, lo, hi, members=most, chemistry=chemistry, stream=Stream.CLUSTER_LABELS
    )
    return drawn[(np.arange(most) < sizes[:, None]).ravel()]


def _write_observed_labels(file: h5py.File, seed: int) -> None:
    """Give the labels of a file errors."""
    labels = np.stack([file[name][:] for name in PARAMETER_UNITS], axis=1)
    for name, values, errors in zip(
        PARAMETER_UNITS, *(each.T for each in observed_labels(labels, seed)), strict=True
    ):
        file[name][:] = values
        file[f"{name}_err"] = errors


def _draw_broadening(broadening: tuple[float, float], seed: int, stars: int) -> Array:
    """The standard deviations (N,) in km/s. Raises InputError for a range that does not rise from 0 or more."""
    if not 0 <= broadening[0] < broadening[1] < np.inf:
        raise InputError(f"broadening must be two rising numbers, 0 or more, not {broadening}")
    return generator(Stream.SURVEY_BROADENING, seed=seed).uniform(*broadening, size=stars)


def _write_stars(
    file: h5py.File,
    emulator: Emulator,
    labels: Array,
    vbroad: Array | None,
    sizes: NDArray[np.int64],
    seed: int,
) -> None:
    """Write ids, groups, twins and `labels` (N, L) of the stars, and `vbroad` (N,) in km/s if there is one."""
    ids = np.array(
        [f"SYN-{seed}-{i:06d}{ascii_uppercase[j]}" for i, size in enumerate(sizes) for j in range(size)],
        dtype="S64",
    )
    file["wavelength"] = emulator.wavelength
    file["wavelength"].attrs["unit"] = "Angstrom (vacuum)"
    file["star_id"] = ids
    file["group"] = np.repeat(np.arange(len(sizes)), sizes)
    if (sizes == 2).all():
        file["twin_of"] = ids.reshape(-1, 2)[:, ::-1].reshape(-1)
    for name in PARAMETER_UNITS:
        file[name] = labels[:, emulator.labels.index(name)]
    if vbroad is not None:
        file["vbroad"] = vbroad
        file["vbroad"].attrs["unit"] = "km/s"
    elements = [i for i, name in enumerate(emulator.labels) if name not in PARAMETER_UNITS]
    file["abundances"] = labels[:, elements]
    file["abundances"].attrs["names"] = [emulator.labels[i] for i in elements]
    file["abundances"].attrs["unit"] = "[X/Fe], dex"


def _write_observations(
    file: h5py.File,
    emulator: Emulator,
    labels: Array,
    vbroad: Array | None,
    snr: float,
    patterns: Array | None,
    seed: int,
) -> None:
    """Write S/N and flux of stars with `labels` (N, L).

    With `patterns` (M, P) of noise they are observed, and their labels get errors first.
    """
    drawn = patterns is not None and np.isinf(snr)
    file["snr"] = observed_snr(len(labels), seed) if drawn else np.full(len(labels), snr)
    if patterns is not None:
        _write_observed_labels(file, seed)
        file["vrad"] = observed_velocities(len(labels), seed)
        file["vrad"].attrs["unit"] = "km/s"
    _write_flux(file, emulator, labels, vbroad, snr, patterns, seed)


def _write_flux(
    file: h5py.File,
    emulator: Emulator,
    labels: Array,
    vbroad: Array | None,
    snr: float,
    patterns: Array | None,
    seed: int,
) -> None:
    """Write the flux of stars with `labels` (N, L); they are observed with `patterns` (M, P) of noise."""
    stars, pixels = len(labels), len(emulator.wavelength)
    grid = Grid(emulator.wavelength)
    chunks = (min(64, stars), pixels)
    flux = file.create_dataset("flux", (stars, pixels), "f4", chunks=chunks)
    if patterns is not None:
        ivar = file.create_dataset("ivar", (stars, pixels), "f4", chunks=chunks)
        star_snr, vrad = file["snr"][:], file["vrad"][:]
    with tqdm(total=stars, unit="star", desc="synthesize", disable=None) as bar:
        for start in range(0, stars, BLOCK_STARS):
            block = emulator(labels[start : start + BLOCK_STARS])
            if vbroad is not None:
                block = broaden(block, vbroad[start : start + BLOCK_STARS], grid)
            rows = slice(start, start + len(block))
            if patterns is not None:
                flux[rows], ivar[rows] = observe(block, star_snr[rows], vrad[rows], patterns, grid, start, seed)
            else:
                flux[rows] = add_noise(block, snr, Stream.SURVEY_NOISE, start, seed=seed)
            bar.update(len(block))
