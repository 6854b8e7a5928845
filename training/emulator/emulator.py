"""The spectral emulator: spectra of red giants as a smooth function of 21 labels, from one safetensors file.

    emulator = Emulator.load()
    flux = emulator(labels)        # (N, 21) -> (N, 7514), true-continuum-normalised

The optical depth -ln(flux) is a mean plus a sum of components. A component is a spectral shape times a
smooth function of the labels, a Gaussian process. Most shapes are principal components; the others belong
each to one element, are zero outside the pixels of its lines and depend on its abundance, and the principal
components do not depend on it: so weak elements are neither averaged away nor smeared over the spectrum.
docs/emulator.md describes the fit and its measured quality; `training.emulator.fit_emulator` is the fit.
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

Array = npt.NDArray[np.float64]

DEFAULT_PATH = Path(__file__).with_name("emulator.safetensors")
FORMAT = "chemtwin-emulator-2"
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
_BATCH, _GPU_BATCH = 256, 8192
_TENSORS = ("wavelength", "lo", "hi", "mean", "components", "centre", "span", "inputs", "scales", "weights")


class EmulatorFileError(ValueError):
    """An emulator file is missing something, damaged, or of another format."""


@dataclass(frozen=True)
class Emulator:
    """Model spectra at any labels inside a box.

    Attributes
    ----------
    wavelength : array (P,)
        Angstrom in vacuum.
    labels : tuple of str
        The 21 names: teff in K, logg in dex of cgs, fe_h and the [X/Fe] in dex.
    lo, hi : array (21,)
        The box.
    provenance : mapping
        What the file was made from.
    tensors : mapping of str to tensor
        The coefficients.
    """

    wavelength: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    lo: npt.NDArray[np.float64]
    hi: npt.NDArray[np.float64]
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
        return cls(
            wavelength=tensors["wavelength"].numpy(),
            labels=tuple(header["labels"]),
            lo=tensors["lo"].numpy(),
            hi=tensors["hi"].numpy(),
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
            For another shape, for a label that is not finite or outside the box, and if [C/Fe] - [O/Fe] exceeds
            CARBON_LIMIT.
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
        """Whether each of `labels` (N, 21) is in the box and not a carbon star's."""
        x = np.asarray(labels, dtype=np.float64)
        return self._inside(x).all(axis=1) & (_carbon_excess(x) <= CARBON_LIMIT + 1e-6)

    def _inside(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        slack = 1e-6 * (self.hi - self.lo)
        inside: npt.NDArray[np.bool_] = (x >= self.lo - slack) & (x <= self.hi + slack)
        return inside

    def _check_range(self, x: npt.NDArray[np.float64]) -> None:
        covered = self.covers(x)
        if covered.all():
            return
        row = int(np.argmin(covered))
        outside = np.flatnonzero(~self._inside(x[row]))
        if len(outside) == 0:
            raise InputError(
                f"C - O = {_carbon_excess(x)[row]:g} (row {row}) is above {CARBON_LIMIT:g}: "
                "the emulator does not cover carbon stars"
            )
        name, value = self.labels[outside[0]], x[row, outside[0]]
        lo, hi = self.lo[outside[0]], self.hi[outside[0]]
        raise InputError(f"{name} = {value:g} (row {row}) is outside the emulator's range {lo:g} to {hi:g}")


def _carbon_excess(labels: Array) -> Array:
    excess: Array = labels[:, _COLUMN["C"]] - labels[:, _COLUMN["O"]]
    return excess


def optical_depth(tensors: Mapping[str, torch.Tensor], labels: npt.NDArray[np.float64]) -> torch.Tensor:
    """-ln(flux), (N, P) float32, of `labels` (N, 21) from an emulator's tensors; no check of the box.

    The weights of a smooth process are large and cancel, so its kernel is computed in double precision.
    """
    components, weights = tensors["components"], tensors["weights"]
    amplitude = torch.empty((len(labels), len(components)), dtype=torch.float64, device=components.device)
    for k, (_, _, kernel) in enumerate(kernels(tensors, labels)):
        amplitude[:, k] = kernel @ weights[k]
    return tensors["mean"] + amplitude.float() @ components


def kernels(
    tensors: Mapping[str, torch.Tensor], labels: npt.NDArray[np.float64]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Compute the kernels of the Gaussian processes, component by component.

    Parameters
    ----------
    tensors : mapping of str to tensor
        An emulator's.
    labels : array (N, 21)
        Labels of N stars.

    Yields
    ------
    near : tensor (N, D)
        The D inputs that the component uses, scaled, of the stars.
    far : tensor (J, D)
        Those of the J spectra of the fit.
    kernel : tensor (N, J)
        The kernel between them; the next component overwrites it.
    """
    inputs = tensors["inputs"]
    z = (torch.from_numpy(derived_inputs(labels)).to(inputs) - tensors["centre"]) / tensors["span"]
    exponent = z.new_empty((len(z), len(inputs)))
    for scale in tensors["scales"]:
        used = scale > 0
        near, far = z[:, used] * scale[used], inputs[:, used] * scale[used]
        left = torch.cat([near, _half_square(near), near.new_ones(len(near), 1)], dim=1)
        right = torch.cat([far, far.new_ones(len(far), 1), _half_square(far)], dim=1)
        torch.matmul(left, right.T, out=exponent)
        yield near, far, exponent.exp_()


def _half_square(rows: torch.Tensor) -> torch.Tensor:
    """-|row|^2 / 2 as a column: with it the exponent -|a - b|^2 / 2 of the kernel is one matrix product."""
    return -0.5 * (rows * rows).sum(dim=1, keepdim=True)


def derived_inputs(labels: Array) -> npt.NDArray[np.float64]:
    """The inputs (N, 25) of the Gaussian processes: the labels (N, 21) and four quantities derived from them.

    These are the logarithms of the oxygen and of the carbon that CO leaves over (one equilibrium constant
    stands for the atmosphere), and of the number of electron donors, plain and weighted by how easily they
    are ionised. Spectra bend sharply where C approaches O; the first two take up the bend.
    """
    oxygen, carbon = 10.0 ** (labels[:, _COLUMN["O"]] + _LOG_O_OVER_C), 10.0 ** labels[:, _COLUMN["C"]]
    half = 0.5 * (oxygen + carbon + 1.0 / _CO_STRENGTH)
    co = half - np.sqrt(half**2 - oxygen * carbon)
    plain, weighted = _donors(labels, dict.fromkeys(_DONORS, 1.0)), _donors(labels, _EASE)
    return np.column_stack([labels, np.log10(oxygen - co), np.log10(carbon - co), plain, weighted])


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
    components, inputs = len(tensors["components"]), labels + 4
    shapes = {
        "wavelength": (pixels,), "mean": (pixels,), "components": (components, pixels),
        "lo": (labels,), "hi": (labels,), "centre": (inputs,), "span": (inputs,), "inputs": (spectra, inputs),
        "scales": (components, inputs), "weights": (components, spectra),
    }  # fmt: skip
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise EmulatorFileError(f"{path}: {name} has shape {tuple(tensors[name].shape)}, not {shape}")
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise EmulatorFileError(f"{path}: {name} holds values that are not finite")
