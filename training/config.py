"""The configuration of a training run: a flat TOML file for each method and preset; unknown keys are errors."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model.errors import InputError
from model.spectra.parameters import may_name_parameter
from training.spectral_basis import PARAMETERS

PRESETS = Path(__file__).with_name("presets")


@dataclass(frozen=True)
class PolyDisConfig:
    """Settings of the baseline."""

    method: Literal["polydis"]
    parameters: tuple[str, ...] = PARAMETERS
    continuum: Literal["survey", "pseudo"] = "survey"
    degree: int = 4
    components: int = 50
    snr: float = float("inf")
    error_floor: float = 0.0


@dataclass(frozen=True)
class NetworkConfig:
    """Settings of FactorDis and FaderDis; docs/reference/training.md explains each."""

    method: Literal["factordis", "faderdis"]
    parameters: tuple[str, ...]
    continuum: Literal["survey", "pseudo"]
    error_floor: float
    inputs: Literal["pixels", "components"]
    degree: int
    components: int
    latents: int
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    adversary: tuple[int, ...]
    noise: Literal["none", "fixed", "redrawn"]
    snr: tuple[float, float]
    reconstruction: Literal["mse", "likelihood"]
    kl: float
    metric: Literal["euclidean", "whitened"]
    disentangle: float
    bins: int
    joint_bins: bool
    gradient_penalty: float
    critic_steps: int
    critic_sees: Literal["spectra", "reconstructions"]
    batch: int
    steps: int
    learning_rate: float
    adversary_learning_rate: float
    schedule: Literal["constant", "cosine"]
    clip_norm: float
    precision: Literal["float32", "tf32", "bf16"]
    validate_every: int
    validate_snr: tuple[float, ...]
    patience: int
    seed: int

    def __post_init__(self) -> None:
        whole = (
            "components",
            "latents",
            "bins",
            "critic_steps",
            "batch",
            "steps",
            "validate_every",
            "patience",
        )
        for key in (*whole, "learning_rate", "adversary_learning_rate"):
            if getattr(self, key) <= 0:
                raise InputError(f"{key} must be above 0, not {getattr(self, key)}")
        if self.seed < 1:
            raise InputError(f"seed must be above 0, not {self.seed}: evaluation draws with 0")
        if not 0 < self.snr[0] <= self.snr[1]:
            raise InputError(f"snr must be two rising numbers above 0, not {self.snr}")
        if self.validate_snr[:1] != (float("inf"),):
            raise InputError(f"validate_snr must begin with inf, not {self.validate_snr}")
        if not self.parameters or len(set(self.parameters)) < len(self.parameters):
            raise InputError(f"parameters must be one or more different names, not {self.parameters}")


Config = PolyDisConfig | NetworkConfig


def preset_path(method: str, name: str) -> Path:
    """The file of a method's preset. Raises InputError for one that the method does not have."""
    path = PRESETS / f"{method}-{name}.toml"
    if not path.exists():
        known = sorted(other.stem.removeprefix(f"{method}-") for other in PRESETS.glob(f"{method}-*.toml"))
        raise InputError(f"{method} has no preset {name}; it has {', '.join(known)}")
    return path


def read_config(path: Path, changes: Iterable[str] = ()) -> Config:
    """The configuration in a TOML file, with `changes` as key=value in TOML's notation.

    Raises InputError for unknown or missing keys and for values of a wrong kind.
    """
    values = tomllib.loads(path.read_text())
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"{change!r} is not key=value")
        try:
            values[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = value.strip()
    kind = PolyDisConfig if values.get("method") == "polydis" else NetworkConfig
    return build(kind, values, str(path))


def build(kind: type[PolyDisConfig] | type[NetworkConfig], values: dict[str, Any], source: str) -> Config:
    """A configuration from plain values, checked against its fields' types."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - set(fields)):
        raise InputError(f"{source}: unknown keys {', '.join(unknown)}; known are {', '.join(fields)}")
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if missing := sorted(required - set(values)):
        raise InputError(f"{source}: missing keys {', '.join(missing)}")
    hints = typing.get_type_hints(kind)
    config = kind(**{key: _checked(key, value, hints[key], source) for key, value in values.items()})
    if wrong := [name for name in config.parameters if not may_name_parameter(name)]:
        raise InputError(f"{source}: a parameter may not be called {', '.join(map(repr, wrong))}")
    return config


def _checked(key: str, value: Any, hint: Any, source: str) -> Any:
    """`value` with the type of `hint`; integers pass for floats."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments:
            return value
        raise InputError(f"{source}: {key} must be one of {', '.join(map(repr, arguments))}, not {value!r}")
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is not ... and len(value) != len(arguments):
            raise InputError(f"{source}: {key} must have {len(arguments)} values, not {value!r}")
        return tuple(_checked(key, item, arguments[0], source) for item in value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if origin is None and type(value) is hint:
        return value
    wanted = hint.__name__ if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) else str(hint)
    raise InputError(f"{source}: {key} must be {wanted}, not {value!r}")
