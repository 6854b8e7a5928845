"""Stellar parameters u, their errors and names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from model.errors import ParameterError
from model.spectra.grid import Array

PARAMETER_UNITS = {"teff": "K", "logg": "dex (cgs)", "fe_h": "dex"}
POSSIBLE = {"teff": (1000.0, 100_000.0), "logg": (-3.0, 10.0), "fe_h": (-8.0, 3.0)}
"""Outside of these a parameter is a mistake (another unit, a -9999 sentinel), not a star."""

MAX_EXTRA = 1e9
"""Largest absolute value of an extra parameter, in whatever unit."""

EXTRA_NAME = re.compile(r"(?!.*_err\Z)[A-Za-z][A-Za-z0-9_]{0,31}\Z")
RESERVED = {"star_id", "flux", "wavelength", "ivar", "error", "bitmask", "normalized", "ra", "dec", "meta"}
RESERVED |= {"in_domain"}
RESERVED |= {"parameters", "snr", "group", "twin_of", "abundances", "k", "rank", "format", "max_distance"}
RESERVED |= {"teff_min", "teff_max", "logg_min", "logg_max", "fe_h_min", "fe_h_max", "fe_h_within", "snr_min"}
"""Names that already have a meaning in requests and survey files."""


def may_name_parameter(name: str) -> bool:
    """Whether a parameter of u may have this name: letters, digits and _, at most 32, not one in use."""
    return EXTRA_NAME.match(name) is not None and name not in RESERVED


@dataclass(frozen=True)
class Parameters:
    """Stellar parameters u and their 1-sigma errors.

    Attributes
    ----------
    teff, logg, fe_h : float
        Effective temperature in K, surface gravity in dex (cgs), [Fe/H] in dex.
    teff_err, logg_err, fe_h_err : float
        Their errors; 0 for an exact value, None where not known.
    extra : mapping of str to float
        The extra parameters of u by name (line broadening, say), in the model's units.
    extra_err : mapping of str to float
        The errors of those that have one.

    Raises
    ------
    ParameterError
        For impossible values.
    """

    teff: float
    logg: float
    fe_h: float
    teff_err: float | None = None
    logg_err: float | None = None
    fe_h_err: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    extra_err: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        for name, (low, high) in POSSIBLE.items():
            value, error = getattr(self, name), getattr(self, name + "_err")
            if not low <= value <= high:
                problems.append(
                    f"{name} = {value:g} is not between {low:g} and {high:g} {PARAMETER_UNITS[name]}"
                )
            if error is not None and not 0 <= error <= high - low:
                problems.append(f"{name}_err is not between 0 and {high - low:g} {PARAMETER_UNITS[name]}")
        problems += [
            f"{name[:40]} is not between -{MAX_EXTRA:g} and {MAX_EXTRA:g}"
            for name, value in self.extra.items()
            if not abs(value) <= MAX_EXTRA
        ]
        for name, error in self.extra_err.items():
            if name not in self.extra:
                problems.append(f"{name[:40]} has an error and no value")
            elif not 0 <= error <= MAX_EXTRA:
                problems.append(f"the error of {name[:40]} is not between 0 and {MAX_EXTRA:g}")
        if problems:
            raise ParameterError(
                "bad_parameters", "impossible stellar parameters: " + "; ".join(problems[:10]), problems
            )

    def check(self, names: Sequence[str]) -> None:
        """Raise ParameterError unless `extra` is a model's parameters `names` but teff, logg and fe_h."""
        wanted = [name for name in names if name not in PARAMETER_UNITS]
        if missing := [name for name in wanted if name not in self.extra]:
            raise ParameterError(
                "missing_parameters",
                f"this model is conditioned on {', '.join(missing)} as well: give it among the parameters",
            )
        if unknown := sorted(name[:40] for name in self.extra if name not in wanted):
            raise ParameterError(
                "unknown_parameters",
                f"this model does not know {', '.join(unknown[:10])}: it has {', '.join(names)}",
            )

    def value(self, name: str) -> float:
        """One parameter by its name."""
        return float(getattr(self, name) if name in PARAMETER_UNITS else self.extra[name])

    def values(self, names: Sequence[str]) -> Array:
        """The named parameters as an array (len(names),)."""
        return np.array([self.value(name) for name in names], dtype=np.float64)

    def error(self, name: str) -> float | None:
        """The 1-sigma error of one parameter; None where not known."""
        found: float | None = (
            getattr(self, name + "_err") if name in PARAMETER_UNITS else self.extra_err.get(name)
        )
        return found

    def errors(self, names: Sequence[str]) -> Array:
        """The 1-sigma errors of the named parameters (len(names),); 0 where not known."""
        return np.array([self.error(name) or 0.0 for name in names], dtype=np.float64)

    def with_errors(self, errors: Mapping[str, float]) -> Parameters:
        """The same parameters with the `errors` of those that are named in it."""
        own: dict[str, Any] = {
            f"{name}_err": error for name, error in errors.items() if name in PARAMETER_UNITS
        }
        extra = {name: error for name, error in errors.items() if name not in PARAMETER_UNITS}
        return replace(self, **own, extra_err={**self.extra_err, **extra})
