"""The spectral emulator: spectra of red giants as a smooth function of 21 labels, from one safetensors file.

    emulator = Emulator.load()
    flux = emulator(labels)        # (N, 21) -> (N, 7514), true-continuum-normalised

The optical depth -ln(flux) is a sum of two parts. The *global* part is carried by principal components,
each a Gaussian process of the labels that shape the atmosphere and the molecules. The *line* part adds, for
each element that only draws lines, a response in the pixels of those lines and nowhere else, so that weak
elements are neither averaged away nor smeared over the spectrum. docs/emulator.md describes the fit and its
measured quality; `training.fit_emulator` is the fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

Array = npt.NDArray[np.floating[Any]]

DEFAULT_PATH = Path(__file__).with_name("emulator.safetensors")
FORMAT = "chemtwin-emulator-1"
LABELS = (
    "teff", "logg", "fe_h", "C", "N", "O", "Na", "Mg", "Al", "Si", "S",
    "K", "Ca", "Ti", "V", "Mn", "Ni", "P", "Cr", "Co", "Rb",
)  # fmt: skip
GLOBAL_LABELS = (*LABELS[:10], "Ca")
LINE_ELEMENTS = ("S", "K", "Ti", "V", "Mn", "Ni", "P", "Cr", "Co", "Rb")

_COLUMN = {name: i for i, name in enumerate(LABELS)}
_LOG_O_OVER_C = 0.27  # solar log n(O) - log n(C), Grevesse, Asplund & Sauval (2007)
_CO_STRENGTH = 30.0
_DONORS = {"fe_h": 7.45, "Na": 6.17, "Mg": 7.53, "Al": 6.37, "Si": 7.51, "Ca": 6.31}  # solar log n, same source
_EASE = {"fe_h": 0.2, "Na": 1.0, "Mg": 0.3, "Al": 1.0, "Si": 0.1, "Ca": 1.0}
_BATCH = 256
_TENSORS = ("wavelength", "lo", "hi", "mean", "components", "centre", "span", "inputs", "scales", "weights")


class EmulatorFileError(ValueError):
    """An emulator file is missing something, damaged, or of another format."""


@dataclass(frozen=True)
class Emulator:
    """Model spectra at any labels inside a box.

    Attributes: `wavelength` (P,) Angstrom in vacuum; `labels` the 21 names (teff in K, logg in dex of cgs,
    fe_h and the [X/Fe] in dex); `lo`, `hi` (21,) the box; `provenance` what the file was made from;
    `tensors` the coefficients.
    """

    wavelength: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    lo: npt.NDArray[np.float64]
    hi: npt.NDArray[np.float64]
    provenance: Mapping[str, Any]
    tensors: Mapping[str, Array]

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
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = json.loads(metadata.get("emulator", "null"))
        except (SafetensorError, ValueError, OSError) as error:
            raise EmulatorFileError(f"{path} is not a readable emulator file: {error}") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise EmulatorFileError(f"{path} is not a {FORMAT} file")
        _check(path, header, tensors)
        return cls(
            wavelength=tensors["wavelength"].astype(np.float64),
            labels=tuple(header["labels"]),
            lo=tensors["lo"].astype(np.float64),
            hi=tensors["hi"].astype(np.float64),
            provenance=header["provenance"],
            tensors={
                name: value if value.dtype.kind != "f" else value.astype(np.float64)
                for name, value in tensors.items()
            },
        )

    def __call__(self, labels: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """True-continuum-normalised flux (N, P) of the stars with `labels` (N, 21), ordered as `self.labels`.

        Raises ValueError for another shape, and naming the label when one is not finite or outside the box.
        """
        x = np.asarray(labels, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.labels):
            raise ValueError(f"labels must have shape (N, {len(self.labels)}), not {x.shape}")
        self._refuse_outside(x)
        flux = np.empty((len(x), len(self.wavelength)), dtype=np.float32)
        for start in range(0, len(x), _BATCH):
            part = slice(start, start + _BATCH)
            flux[part] = np.exp(-optical_depth(self.tensors, x[part]))
        return flux

    def _refuse_outside(self, x: npt.NDArray[np.float64]) -> None:
        slack = 1e-6 * (self.hi - self.lo)
        inside = (x >= self.lo - slack) & (x <= self.hi + slack)
        if not inside.all():
            row, column = np.argwhere(~inside)[0]
            raise ValueError(
                f"{self.labels[column]} = {x[row, column]:g} (row {row}) is outside the emulator's range "
                f"{self.lo[column]:g} to {self.hi[column]:g}"
            )


def optical_depth(tensors: Mapping[str, Array], labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """-ln(flux), (N, P), of `labels` (N, 21) from an emulator's tensors; no check of the box."""
    z = global_inputs(labels, tensors["centre"], tensors["span"])
    coefficients = np.empty((len(labels), len(tensors["components"])))
    for k, (scale, weight) in enumerate(zip(tensors["scales"], tensors["weights"], strict=True)):
        coefficients[:, k] = kernel(z * scale, tensors["inputs"] * scale) @ weight
    depth: npt.NDArray[np.float64] = tensors["mean"] + coefficients @ tensors["components"]
    for element in LINE_ELEMENTS:
        growth = curve_of_growth(labels, element, tensors["lo"], tensors["hi"])
        depth[:, tensors[f"pixels_{element}"]] += growth @ tensors[f"lines_{element}"]
    return depth


def kernel(a: Array, b: Array) -> npt.NDArray[np.float64]:
    """Squared-exponential kernel (N, M) of the rows of a (N, D) and b (M, D), in units of the length scales."""
    square = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2.0 * (a @ b.T)
    kernel: npt.NDArray[np.float64] = np.exp(-0.5 * np.maximum(square, 0.0))
    return kernel


def global_inputs(labels: Array, centre: Array | float, span: Array | float) -> npt.NDArray[np.float64]:
    """The inputs (N, 15) of the Gaussian processes, (raw - centre) / span.

    Eleven labels, and four quantities through which they act together: the logarithms of the oxygen and of
    the carbon that CO leaves over (one equilibrium constant stands for the atmosphere), and of the electron
    donors, counted by number and counted by how easily they are ionised. Spectra bend sharply where C
    approaches O; these inputs take the bend up.
    """
    oxygen, carbon = 10.0 ** (labels[:, _COLUMN["O"]] + _LOG_O_OVER_C), 10.0 ** labels[:, _COLUMN["C"]]
    half = 0.5 * (oxygen + carbon + 1.0 / _CO_STRENGTH)
    co = half - np.sqrt(half**2 - oxygen * carbon)
    raw = np.column_stack(
        [
            labels[:, [_COLUMN[name] for name in GLOBAL_LABELS]],
            np.log10(oxygen - co),
            np.log10(carbon - co),
            _donors(labels, dict.fromkeys(_DONORS, 1.0)),
            _donors(labels, _EASE),
        ]
    )
    scaled: npt.NDArray[np.float64] = (raw - centre) / span
    return scaled


def _donors(labels: Array, weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
    total = np.zeros(len(labels))
    for name, solar in _DONORS.items():
        excess = 0.0 if name == "fe_h" else labels[:, _COLUMN[name]]
        total += weights[name] * 10.0 ** (solar - 7.5 + excess)
    return np.log10(total)


def curve_of_growth(labels: Array, element: str, lo: Array, hi: Array) -> npt.NDArray[np.float64]:
    """Functions (N, 30) that sum up to a line of `element`: {[X/Fe], 10^([X/Fe]/2), 10^[X/Fe]} x a quadratic.

    They are the linear, flat and damped regimes of a curve of growth; the quadratic is in Teff, logg and
    [Fe/H]. All vanish at [X/Fe] = 0.
    """
    abundance = labels[:, _COLUMN[element]]
    growth = np.stack([abundance, 10.0 ** (abundance / 2) - 1.0, 10.0**abundance - 1.0], axis=1)
    t, g, m = ((2.0 * labels[:, :3] - lo[:3] - hi[:3]) / (hi[:3] - lo[:3])).T
    quadratic = np.stack([np.ones_like(t), t, g, m, t * t, t * g, t * m, g * g, g * m, m * m], axis=1)
    functions: npt.NDArray[np.float64] = growth[:, :, None] * quadratic[:, None, :]
    return functions.reshape(len(labels), -1)


def _check(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
    names = _TENSORS + tuple(f"{kind}_{e}" for e in LINE_ELEMENTS for kind in ("pixels", "lines"))
    missing = sorted(set(names) - set(tensors))
    if missing or tuple(header.get("labels", ())) != LABELS or not isinstance(header.get("provenance"), dict):
        raise EmulatorFileError(
            f"{path} lacks what an emulator needs: {', '.join(missing) or 'labels or provenance'}"
        )
    pixels, (components, inputs) = len(tensors["wavelength"]), tensors["scales"].shape
    shapes = {
        "lo": (len(LABELS),), "hi": (len(LABELS),), "mean": (pixels,), "components": (components, pixels),
        "centre": (inputs,), "span": (inputs,), "inputs": (tensors["inputs"].shape[0], inputs),
        "weights": (components, tensors["inputs"].shape[0]),
    }  # fmt: skip
    shapes |= {f"lines_{e}": (30, len(tensors[f"pixels_{e}"])) for e in LINE_ELEMENTS}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise EmulatorFileError(f"{path}: {name} has shape {tensors[name].shape}, not {shape}")
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise EmulatorFileError(f"{path}: {name} holds values that are not finite")
