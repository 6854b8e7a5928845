"""The model file: one safetensors file whose JSON header is the model's card.

Reading it never runs code from it. Tensors: `wavelength` (P,) Angstrom, `continuum_pixels` (C,) if the
model has a normaliser, `abundance_*` if it has an abundance readout, and the method's own (`Model.arrays`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.errors import ModelFileError
from model.methods.abundance_readout import AbundanceReadout
from model.methods.base import Card, Model
from model.spectra.continuum import METHOD, Normaliser
from model.spectra.grid import Grid

FORMAT = "chemtwin-model-1"
METHODS = {
    "polydis": ("model.methods.polydis", "PolyDis"),
    "factordis": ("model.methods.autoencoder", "FactorDis"),
    "faderdis": ("model.methods.autoencoder", "FaderDis"),
    "gaussdis": ("model.methods.gaussdis", "GaussDis"),
}
"""Module and class of each method: a service imports that of its model only, so torch only for networks."""

READOUT = ("slope", "constant", "scatter")
SHIPPED = Path(__file__).with_name("default.safetensors")
"""The model that the service uses when none is named: adapted to observed spectra."""

REFERENCE = Path(__file__).with_name("reference.safetensors")
"""The model before it was adapted, for synthetic spectra: the paper's experiment."""

BRANCH = Path(__file__).with_name("branch.safetensors")
"""The model of the whole giant branch, adapted to observed spectra."""


def save_model(model: Model, path: Path) -> None:
    """Write a model file, whole or not at all.

    Parameters
    ----------
    model : Model
        Its card's version is ignored: the file's is a digest of its content without the card's `quality` and
        the abundance readout, so that measuring a model does not change its version.
    path : Path
        The file to write.
    """
    tensors: dict[str, NDArray[Any]] = {"wavelength": model.grid.wavelength, **model.arrays()}
    if model.normaliser is not None:
        tensors["continuum_pixels"] = model.normaliser.pixels
    card = dataclasses.asdict(model.card) | {"version": ""}
    for name in ("units", "typical_errors", "logg_limits"):  # earlier releases write no card with empty ones
        if not card[name]:
            del card[name]
    header: dict[str, Any] = {"format": FORMAT, "card": card}
    if model.normaliser is not None:
        header["normalisation"] = model.normaliser.header()
    unmeasured = header | {"card": card | {"quality": {}}}
    digest = hashlib.sha256(json.dumps(unmeasured, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    card["version"] = digest.hexdigest()[:12]
    if model.readout is not None:
        tensors |= model.readout.arrays()
        header["abundances"] = {
            "names": model.readout.names,
            "provenance": model.readout.provenance,
        }
    content = save(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
        metadata={"chemtwin": json.dumps(header)},
    )
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_card(path: Path) -> Card:
    """Read a model file's card alone.

    Parameters
    ----------
    path : Path
        The model file.

    Returns
    -------
    Card
        The card.

    Raises
    ------
    ModelFileError
        When the file is missing, damaged or of another kind.
    """
    header, _ = _read(path, with_tensors=False)
    try:
        return _card(header)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError("bad_model_file", f"{path} is an invalid model file: {error!r}") from error


def _card(header: dict[str, Any]) -> Card:
    fields = header["card"]
    fields["parameters"] = {name: (low, high) for name, (low, high) in fields["parameters"].items()}
    errors = fields.get("typical_errors", {})
    fields["typical_errors"] = {name: float(error) for name, error in errors.items()}
    limits = fields.get("logg_limits", ())
    fields["logg_limits"] = tuple((float(teff), float(low), float(high)) for teff, low, high in limits)
    return Card(**fields)


def _read(path: Path, with_tensors: bool = True) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A model file's header and its tensors, or none. Raises ModelFileError."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("chemtwin", "{}"))
            tensors_read = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelFileError("bad_model_file", f"cannot read the model file {path}: {error}") from error
    if header.get("format") != FORMAT:
        raise ModelFileError("bad_model_file", f"{path} is not a {FORMAT} file")
    return header, tensors_read


def load_model(path: Path = SHIPPED) -> Model:
    """Read a model file.

    Parameters
    ----------
    path : Path
        The model file, by default the shipped model.

    Returns
    -------
    Model
        The model, of its method's class.

    Raises
    ------
    ModelFileError
        When the file is missing, damaged or of another kind.
    """
    header, tensors = _read(path)
    try:
        card = _card(header)
        grid = Grid(tensors.pop("wavelength"))
        normaliser = None
        if "normalisation" in header:
            if header["normalisation"]["method"] != METHOD:
                raise ValueError(f"normalisation {header['normalisation']['method']!r} is unknown")
            pixels = tensors.pop("continuum_pixels")
            normaliser = Normaliser(grid, pixels, header["normalisation"]["degree"])
        readout = None
        if "abundances" in header:
            values = {name: tensors.pop(f"abundance_{name}").astype(np.float64) for name in READOUT}
            fitted = header["abundances"]
            readout = AbundanceReadout(names=tuple(fitted["names"]), provenance=fitted["provenance"], **values)
        module, name = METHODS[card.method]
        model: Model = getattr(import_module(module), name)(card, grid, normaliser, **tensors)
        model.readout = readout
        return model
    except (IndexError, KeyError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        raise ModelFileError("bad_model_file", f"{path} is an invalid model file: {error!r}") from error
