"""A star's observation as bytes for the store: safetensors, deflated.

Fluxes and ivar are rounded to single precision, wavelengths are not. The metadata `observation` is JSON. The
two grids of APOGEE are known by their lengths; any other is stored with the flux, so that a model with a grid
of its own can be given the spectrum.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from index.errors import StoreError
from model.spectra.grid import APOGEE_PIXELS, Array, Grid
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation

FORMAT = "chemtwin-spectrum-2"
FIRST_FORMAT = "chemtwin-spectrum-1"
"""Bytes of earlier releases: an error of 0 stands in them for one that was not given."""

LEVEL = 1
"""Of deflate: more costs several times as long and gains 1 %."""

FORMER_NAMES = {"others": "extra", "others_err": "extra_err"}
"""Fields of `Parameters` by the names that they have in bytes of earlier releases."""

APOGEE = Grid.apogee()


def pack(observation: Observation, grid: Grid, warnings: tuple[str, ...] = ()) -> bytes:
    """An observation as bytes.

    Parameters
    ----------
    observation
        A spectrum as it was sent.
    grid
        The model's grid: that of a flux of its length without wavelengths.
    warnings
        What the sender was warned of.
    """
    tensors: dict[str, NDArray[Any]] = {"flux": observation.flux.astype(np.float32)}
    if observation.ivar is not None:
        tensors["ivar"] = observation.ivar.astype(np.float32)
    if observation.bad is not None:
        tensors["bad"] = np.asarray(observation.bad)
    wavelength = observation.wavelength
    if wavelength is None and observation.flux.size == len(grid):
        wavelength = grid.wavelength
    if wavelength is not None and not APOGEE.is_own(wavelength, observation.flux.size):
        tensors["wavelength"] = wavelength
    facts = {
        "format": FORMAT,
        "parameters": dataclasses.asdict(observation.parameters),
        "normalized": observation.normalized,
        "warnings": warnings,
    }
    return zlib.compress(save(tensors, metadata={"observation": json.dumps(facts)}), LEVEL)


def unpack(content: bytes) -> tuple[Observation, tuple[str, ...]]:
    """The observation of `pack`'s bytes, and its warnings. Raises StoreError for other bytes."""
    try:
        raw = zlib.decompress(content)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        facts, tensors = json.loads(header["__metadata__"]["observation"]), load(raw)
        if facts["format"] not in (FIRST_FORMAT, FORMAT):
            raise ValueError(f"format {facts['format']}")
        flux = tensors["flux"].astype(np.float64)
        wavelength: Array | None = tensors.get("wavelength")
        if wavelength is None and flux.size != APOGEE_PIXELS:
            wavelength = APOGEE.wavelength
        parameters = {FORMER_NAMES.get(name, name): value for name, value in facts["parameters"].items()}
        if facts["format"] == FIRST_FORMAT:
            parameters |= {name: parameters[name] or None for name in ("teff_err", "logg_err", "fe_h_err")}
        observation = Observation(
            flux=flux,
            parameters=Parameters(**parameters),
            ivar=tensors["ivar"].astype(np.float64) if "ivar" in tensors else None,
            bad=tensors.get("bad"),
            wavelength=wavelength,
            normalized=facts["normalized"],
        )
        return observation, tuple(facts["warnings"])
    except (zlib.error, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"a stored spectrum cannot be read: {error}") from error
