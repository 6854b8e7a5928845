"""The spectral emulator: spectra of red giants as a smooth function of 21 labels, from one safetensors file.

    emulator = Emulator.load()
    flux = emulator(labels)        # (N, 21) -> (N, 7514), true-continuum-normalised

The optical depth -ln(flux) is a mean plus a sum of components. A component is a spectral shape times a
smooth function of the labels, a Gaussian process. Most shapes are principal components; the others belong
each to one element, are zero outside the pixels of its lines and depend on its abundance, and the principal
components do not depend on it: so weak elements are neither averaged away nor smeared over the spectrum.
research/emulator.md describes the fit and its measured quality; `training.emulator.fit_emulator` is the fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open

from model.errors import InputError
from training.emulator.domain import BRANCH, Domain

Array = npt.NDArray[np.float64]

DEFAULT_PATH = Path(__file__).with_name("emulator.safetensors")
BRANCH_PATH = Path(__file__).with_name("branch.safetensors")
FORMAT = "chemtwin-emulator-3"
LABELS = (
    "teff", "logg", "fe_h", "C", "N", "O", "Na", "Mg", "Al", "Si", "S",
    "K", "Ca", "Ti", "V", "Mn", "Ni", "P", "Cr", "Co", "Rb",
)  # fmt: skip
CARBON_LIMIT = 0.22  # largest [C/Fe] - [O/Fe] of the training spectra

_COLUMN = {name: i for i, name in enumerate(LABELS)}
_LOG_O_OVER_C = 0.27  # solar log n(O) - log n(C), Grevesse, Asplund & Sauval (2007)
_CO_STRENGTH = 30.0
_DONORS = {"fe_h": 7.45, "Na": 6.17, "Mg": 7.53, "Al": 6.37, "Si": 7.51, "Ca": 6.31}  # solar log n, same source
_EASE = {"fe_h": 0.2, "Na": 1.0, "Mg": 0.3, "Al": 1.0, "Si": 0.1, "Ca": 1.0}
LINE_ELEMENTS = LABELS[LABELS.index("Na") :]
INPUTS = (
    *LABELS, "free O", "free C", "donors", "ionised donors",
    "theta", "height", "free O branch", "free C branch", "OH", "CN", "iron lines",
    *(f"{element}/H" for element in LINE_ELEMENTS),
)  # fmt: skip
"""Inputs of the Gaussian processes, in the order of `derived_inputs`."""

_BATCH, _GPU_BATCH = 256, 8192
_TENSORS = (
    "wavelength", "lo", "hi", "logg_range", "mean", "components", "centre", "span", "inputs", "scales", "sizes",
    "weights",
)  # fmt: skip


class EmulatorFileError(ValueError):
    """An emulator file is missing something, damaged, or of another format."""


@dataclass(frozen=True)
class Emulator:
    """Model spectra at any labels of a domain.

    Attributes
    ----------
    wavelength : array (P,)
        Angstrom in vacuum.
    labels : tuple of str
        The 21 names: teff in K, logg in dex of cgs, fe_h and the [X/Fe] in dex.
    lo, hi : array (21,)
        The smallest box around the domain.
    domain : Domain
        The labels that the emulator covers.
    provenance : mapping
        What the file was made from.
    tensors : mapping of str to tensor
        The coefficients.
    """

    wavelength: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    lo: npt.NDArray[np.float64]
    hi: npt.NDArray[np.float64]
    domain: Domain
    provenance: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def load(cls, path: str | Path | None = None) -> Emulator:
        """Read an emulator file, the shipped one by default.

        Raises FileNotFoundError if there is none and EmulatorFileError, naming the file, if it cannot be
        used.
        """
        path = DEFAULT_PATH if path is None else Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no emulator file at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = json.loads(metadata.get("emulator", "null"))
        except (SafetensorError, ValueError, OSError) as error:
            raise EmulatorFileError(f"{path} is not a readable emulator file: {error}") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise EmulatorFileError(f"{path} is not a {FORMAT} file")
        _check(path, header, tensors)
        single = {name: tensors[name].float() for name in ("mean", "components")}
        domain = Domain(*(tensors[name].numpy() for name in ("lo", "hi", "logg_range")))
        return cls(
            wavelength=tensors["wavelength"].numpy(),
            labels=tuple(header["labels"]),
            lo=domain.lo.min(axis=0),
            hi=domain.hi.max(axis=0),
            domain=domain,
            provenance=header["provenance"],
            tensors={**tensors, **single},
        )

    def __call__(self, labels: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Spectra of stars.

        Parameters
        ----------
        labels : array (N, 21)
            Ordered as `self.labels`.

        Returns
        -------
        array of float32 (N, P)
            Flux over the true continuum.

        Raises
        ------
        InputError
            For another shape, for a label that is not finite or outside the domain, and if [C/Fe] - [O/Fe]
            exceeds CARBON_LIMIT.
        """
        x = np.asarray(labels, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.labels):
            raise InputError(f"labels must have shape (N, {len(self.labels)}), not {x.shape}")
        self._check_range(x)
        flux = np.empty((len(x), len(self.wavelength)), dtype=np.float32)
        batch = _BATCH if self.tensors["mean"].device.type == "cpu" else _GPU_BATCH
        for start in range(0, len(x), batch):
            part = slice(start, start + batch)
            flux[part] = torch.exp(-optical_depth(self.tensors, x[part])).cpu().numpy()
        return flux

    def to(self, device: torch.device) -> Emulator:
        """The same emulator, computing on `device`, whose spectra differ by rounding."""
        return replace(self, tensors={name: value.to(device) for name, value in self.tensors.items()})

    def covers(self, labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each of `labels` (N, 21) is in the domain and not a carbon star's."""
        x = np.asarray(labels, dtype=np.float64)
        inside = self.domain.inside(x).all(axis=2).any(axis=0)
        return inside & (_carbon_excess(x) <= CARBON_LIMIT + 1e-6)

    def _check_range(self, x: npt.NDArray[np.float64]) -> None:
        covered = self.covers(x)
        if covered.all():
            return
        row = int(np.argmin(covered))
        star = x[row : row + 1]
        inside = self.domain.inside(star)[:, 0]
        region = max(range(len(inside)), key=lambda i: (int(inside[i].sum()), i))  # the one it misses least
        outside = np.flatnonzero(~inside[region])
        if len(outside) == 0:
            raise InputError(
                f"C - O = {_carbon_excess(x)[row]:g} (row {row}) is above {CARBON_LIMIT:g}: "
                "the emulator does not cover carbon stars"
            )
        name, value = self.labels[outside[0]], star[0, outside[0]]
        lo, hi = (side[region, 0, outside[0]] for side in self.domain.limits(star))
        where = f" at teff = {star[0, 0]:g}" if name == "logg" else ""
        raise InputError(
            f"{name} = {value:g} (row {row}) is outside the emulator's range {lo:g} to {hi:g}{where}"
        )


def _carbon_excess(labels: Array) -> Array:
    excess: Array = labels[:, _COLUMN["C"]] - labels[:, _COLUMN["O"]]
    return excess


def optical_depth(tensors: Mapping[str, torch.Tensor], labels: npt.NDArray[np.float64]) -> torch.Tensor:
    """-ln(flux), (N, P) float32, of `labels` (N, 21) from an emulator's tensors; no check of the box.

    The weights of a smooth process are large and cancel, so its kernel is computed in double precision.
    """
    components, weights = tensors["components"], tensors["weights"]
    amplitude = torch.empty((len(labels), len(components)), dtype=torch.float64, device=components.device)
    for rows, _, _, kernel in kernels(tensors, labels):
        amplitude[:, rows] = kernel @ weights[rows].T
    return tensors["mean"] + amplitude.float() @ components


def kernels(
    tensors: Mapping[str, torch.Tensor], labels: npt.NDArray[np.float64]
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Compute the kernels of the Gaussian processes, one by one.

    Parameters
    ----------
    tensors : mapping of str to tensor
        An emulator's.
    labels : array (N, 21)
        Labels of N stars.

    Yields
    ------
    rows : slice
        The components that share the kernel.
    near : tensor (N, D)
        The D inputs that the kernel uses, scaled, of the stars.
    far : tensor (J, D)
        Those of the J spectra of the fit.
    kernel : tensor (N, J)
        The kernel between them; the next one overwrites it.
    """
    inputs = tensors["inputs"]
    z = (torch.from_numpy(derived_inputs(labels)).to(inputs) - tensors["centre"]) / tensors["span"]
    exponent = z.new_empty((len(z), len(inputs)))
    stop = 0
    for scale, size in zip(tensors["scales"], tensors["sizes"].tolist(), strict=True):
        used = scale > 0
        near, far = z[:, used] * scale[used], inputs[:, used] * scale[used]
        left = torch.cat([near, _half_square(near), near.new_ones(len(near), 1)], dim=1)
        right = torch.cat([far, far.new_ones(len(far), 1), _half_square(far)], dim=1)
        torch.matmul(left, right.T, out=exponent)
        start, stop = stop, stop + size
        yield slice(start, stop), near, far, exponent.exp_()


def _half_square(rows: torch.Tensor) -> torch.Tensor:
    """-|row|^2 / 2 as a column: with it the exponent -|a - b|^2 / 2 of the kernel is one matrix product."""
    return -0.5 * (rows * rows).sum(dim=1, keepdim=True)


def derived_inputs(labels: Array) -> npt.NDArray[np.float64]:
    """The inputs (N, 47) of the Gaussian processes, named by `INPUTS`, from labels (N, 21).

    After the labels come the logarithms of the oxygen and of the carbon that CO leaves over (one equilibrium
    constant stands for the atmosphere), and of the number of electron donors, plain and weighted by how easily
    they are ionised. Spectra bend sharply where C approaches O; the first two take up the bend.

    The others serve the whole giant branch: theta = 5040 K / Teff; log g above the middle of the branch; what
    CO leaves over with an equilibrium constant that follows the atmosphere; the strengths of OH, CN and neutral
    iron lines; and the [X/H] of the line elements.
    """
    o, c = labels[:, _COLUMN["O"]], labels[:, _COLUMN["C"]]
    teff, logg, iron = labels[:, :3].T
    theta = 5040.0 / teff
    cool = theta - 1.15
    constant = 10.0 ** (1.7 + 12.0 * cool + iron + 0.4 * (logg - 2.0))
    oxygen, carbon = _free(o, c, constant)
    branch = [
        theta,
        logg - 1.0 - 0.0024 * (teff - 4000.0),
        oxygen,
        carbon,
        oxygen + iron + 12.0 * cool,
        carbon + labels[:, _COLUMN["N"]] + 2.0 * iron + 12.0 * cool,
        iron + 3.0 * cool,
    ]
    donors = [_donors(labels, dict.fromkeys(_DONORS, 1.0)), _donors(labels, _EASE)]
    lines = labels[:, _COLUMN["Na"] :] + iron[:, None]
    return np.column_stack([labels, *_free(o, c, np.float64(_CO_STRENGTH)), *donors, *branch, lines])


def _free(o: Array, c: Array, constant: Array | np.float64) -> tuple[Array, Array]:
    """Logarithms of the oxygen and carbon (N,) that CO leaves over, of [O/Fe] and [C/Fe] (N,)."""
    oxygen, carbon = 10.0 ** (o + _LOG_O_OVER_C), 10.0**c
    half = 0.5 * (oxygen + carbon + 1.0 / constant)
    co = half - np.sqrt(half**2 - oxygen * carbon)
    return np.log10(oxygen - co), np.log10(carbon - co)


def _donors(labels: Array, weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
    total = np.zeros(len(labels))
    for name, solar in _DONORS.items():
        excess = 0.0 if name == "fe_h" else labels[:, _COLUMN[name]]
        total += weights[name] * 10.0 ** (solar - 7.5 + excess)
    return np.log10(total)


def _check(path: Path, header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    missing = sorted(set(_TENSORS) - set(tensors))
    if missing or tuple(header.get("labels", ())) != LABELS or not isinstance(header.get("provenance"), dict):
        raise EmulatorFileError(
            f"{path} lacks what an emulator needs: {', '.join(missing) or 'labels or provenance'}"
        )
    pixels, spectra, labels = len(tensors["wavelength"]), len(tensors["inputs"]), len(LABELS)
    components, inputs, regions = len(tensors["components"]), len(INPUTS), len(tensors["lo"])
    processes = len(tensors["sizes"])
    shapes = {
        "wavelength": (pixels,), "mean": (pixels,), "components": (components, pixels),
        "lo": (regions, labels), "hi": (regions, labels), "centre": (inputs,), "span": (inputs,),
        "inputs": (spectra, inputs),
        "scales": (processes, inputs), "weights": (components, spectra), "sizes": (processes,),
        "logg_range": (regions, len(BRANCH), 3),
    }  # fmt: skip
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise EmulatorFileError(f"{path}: {name} has shape {tuple(tensors[name].shape)}, not {shape}")
    if int(tensors["sizes"].sum()) != components:
        raise EmulatorFileError(f"{path}: sizes do not sum to {components} components")
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise EmulatorFileError(f"{path}: {name} holds values that are not finite")
