"""The service's responses as dataclasses, astropy tables and specutils spectra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from astropy.table import Column, Table
from numpy.typing import NDArray

from chemtwin_client.labels import NEEDED

if TYPE_CHECKING:
    from specutils import Spectrum

Response = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured:
    """A star's latent and what is known of its spectrum.

    Attributes
    ----------
    star_id : str
        The star's id.
    latent : array (D,)
        Latents compare only under the same `model`.
    latent_sd : array (D,) or None
        Standard deviations of `latent`; None for a star without errors.
    model : str
        The model as name@version.
    snr : float or None
        Median S/N per pixel; None without errors.
    chi2 : float or None
        Reduced chi-square of the reconstruction; None without errors.
    masked_fraction : float
        Fraction of the model's pixels that carry no information.
    in_domain : bool
        Whether the model was trained on such stars.
    warnings : tuple of str
        Reasons to doubt the latent.
    """

    star_id: str
    latent: Floats
    latent_sd: Floats | None
    model: str
    snr: float | None
    chi2: float | None
    masked_fraction: float
    in_domain: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedded(Measured):
    """A star that was just stored: `replaced` if its id was stored before, `processing` the steps."""

    replaced: bool
    processing: tuple[str, ...]

    @classmethod
    def of(cls, response: Response) -> Embedded:
        """From the response of POST /embed."""
        return cls(
            **_measured(response),
            replaced=response["replaced"],
            processing=tuple(response["processing"]),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Star(Measured):
    """A stored star: the attributes of `Measured`, its parameters and its position.

    Attributes
    ----------
    teff, logg, fe_h : float
        Effective temperature in K, surface gravity in dex (cgs), [Fe/H] in dex.
    parameters : dict of str to float
        The extra parameters that the model is conditioned on, in its units.
    ra, dec : float or None
        Position in degrees (ICRS).
    cluster : str or None
        The cluster or group that `meta` names.
    meta : dict
        What was stored with the star.
    """

    teff: float
    logg: float
    fe_h: float
    parameters: dict[str, float]
    ra: float | None
    dec: float | None
    cluster: str | None
    meta: dict[str, Any]

    @classmethod
    def of(cls, response: Response) -> Star:
        """From a star of GET /stars."""
        fields = {name: response[name] for name in ("teff", "logg", "fe_h", "ra", "dec", "cluster", "meta")}
        return cls(**_measured(response), **fields, parameters=response.get("parameters", {}))

    @property
    def labels(self) -> dict[str, Any]:
        """Its parameters, as `Chemtwin.recast` takes them for `to`."""
        extra = {"parameters": self.parameters} if self.parameters else {}
        return {"teff": self.teff, "logg": self.logg, "fe_h": self.fe_h, **extra}


def _measured(response: Response) -> dict[str, Any]:
    """The fields of `Measured`."""
    sd = response["latent_sd"]
    return {
        **{name: response[name] for name in ("star_id", "snr", "chi2", "masked_fraction", "in_domain")},
        "latent": np.array(response["latent"]),
        "latent_sd": None if sd is None else np.array(sd),
        "model": identity(response),
        "warnings": tuple(response["warnings"]),
    }


def identity(response: Response) -> str:
    """The model of a response, as name@version."""
    return f"{response['model']['name']}@{response['model']['version']}"


def extra_units(card: Mapping[str, Any]) -> dict[str, str]:
    """The units of the model's parameters beyond Teff, log g and [Fe/H], by name."""
    return {name: one.get("unit", "") for name, one in card["parameters"].items() if name not in NEEDED}


ABOUT = {
    "star_id": ("star", "", "meta.id;meta.main"),
    "asked_star_id": ("the star whose twins these are", "", "meta.id"),
    "distance": ("Euclidean distance of the latents", "", "stat.value;arith.diff"),
    "p_same": ("how often identical stars lie at least this far apart", "", "stat.probability"),
    "verdict": ("same within noise, different, or cannot tell", "", "meta.code.class"),
    "log_likelihood_ratio": ("ln likelihood of same chemistry over different", "", "stat.likelihood"),
    "doppelganger_rate": (
        "fraction of random pairs this close; null below 1,000 stars",
        "",
        "stat.probability",
    ),
    "teff": ("effective temperature", "K", "phys.temperature.effective"),
    "logg": ("log10 of surface gravity in cm/s2, dex", "", "phys.gravity"),
    "fe_h": ("[Fe/H], dex", "", "phys.abund.Fe"),
    "fe_h_err": ("1-sigma error of fe_h, dex", "", "stat.error;phys.abund.Fe"),
    "snr": ("median S/N per pixel", "", "stat.snr"),
    "latent": ("latent by the model", "", "stat.fit.param"),
    "latent_sd": ("standard deviations of latent", "", "stat.stdev"),
    "chi2": ("reduced chi-square of the reconstruction", "", "stat.fit.chi2"),
    "masked_fraction": ("part of the pixels not used", "", "meta.number;arith.ratio"),
    "in_domain": ("whether the model knows such stars", "", "meta.code"),
    "warnings": ("what to mind", "", "meta.note"),
    "ra": ("right ascension (ICRS)", "deg", "pos.eq.ra;meta.main"),
    "dec": ("declination (ICRS)", "deg", "pos.eq.dec;meta.main"),
    "cluster": ("cluster or group", "", "meta.id.parent"),
    "model": ("latents compare only under the same", "", "meta.version;meta.software"),
    "outcome": ("stored, replaced, skipped or refused", "", "meta.code"),
    "code": ("why it was refused, for programs", "", "meta.code.error"),
    "message": ("why it was refused", "", "meta.note"),
    "element": ("X", "", "phys.atmol.element"),
    "x_fe": ("[X/Fe], dex", "", "phys.abund"),
    "x_fe_err": ("standard deviation of x_fe, dex", "", "stat.stdev;phys.abund"),
}
"""Description, unit and UCD1+ of every column. As in the Virtual Observatory, dex is no unit."""

SHOWN = {
    "teff": ".1f",
    "logg": ".3f",
    "fe_h": ".4f",
    "fe_h_err": ".4f",
    "distance": ".4f",
    "p_same": ".4g",
    "doppelganger_rate": ".3g",
    "log_likelihood_ratio": ".3f",
    "snr": ".1f",
    "chi2": ".4g",
    "masked_fraction": ".4f",
    "x_fe": ".4f",
    "x_fe_err": ".4f",
}
"""How numbers are printed, and written as text; finer than any is known."""

TEXTS = {"star_id", "asked_star_id", "verdict", "cluster", "warnings", "model", "outcome", "code", "message"}
TEXTS |= {"element"}
VECTORS = {"latent", "latent_sd"}
TWIN = (
    "star_id",
    "distance",
    "p_same",
    "verdict",
    "log_likelihood_ratio",
    "doppelganger_rate",
    "teff",
    "logg",
    "fe_h",
    "fe_h_err",
    "snr",
    "in_domain",
    "ra",
    "dec",
    "cluster",
)
STAR = (
    "star_id", "teff", "logg", "fe_h", "snr", "chi2", "masked_fraction", "in_domain",
    "warnings", "ra", "dec", "cluster", "model", "latent", "latent_sd",
)  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]], names: Iterable[str], extra: Mapping[str, str]) -> Table:
    """A table of the columns `names` and the extra parameters, with their units; None becomes NaN."""
    made = Table()
    for name in names:
        description, unit, ucd = ABOUT[name]
        made[name] = Column(
            _values(name, [row[name] for row in rows]),
            unit=unit or None,
            description=description,
            meta={"ucd": ucd},
            format=SHOWN.get(name),
        )
    for name, unit in extra.items():
        values = _values(name, [row["parameters"][name] for row in rows])
        made[name] = Column(values, unit=unit or None, description="a parameter of the model")
    return made


def _values(name: str, values: list[Any]) -> NDArray[Any]:
    if name in TEXTS:
        return np.array([value or "" for value in values], dtype=str) if values else np.zeros(0, "U1")
    if name in VECTORS:
        width = max((len(value) for value in values if value is not None), default=1)
        return np.array([np.full(width, np.nan) if value is None else value for value in values]).reshape(
            -1, width
        )
    if name == "in_domain":
        return np.array(values, dtype=bool)
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def twins_table(
    responses: Sequence[Response],
    extra: Mapping[str, str],
    by_likelihood: bool,
    queries: Sequence[str] | None = None,
) -> Table:
    """The twins of all `responses`, with a column `asked_star_id` if `queries` gives the stars searched for."""
    names = [name for name in TWIN if by_likelihood or name != "log_likelihood_ratio"]
    rows = [twin for response in responses for twin in response["twins"]]
    if queries is not None:
        names = ["asked_star_id", *names]
        owners = [star for star, one in zip(queries, responses, strict=True) for _ in one["twins"]]
        rows = [{"asked_star_id": star, **twin} for star, twin in zip(owners, rows, strict=True)]
    return table(rows, names, extra)


def twins_of_one(response: Response, extra: Mapping[str, str], by_likelihood: bool) -> Table:
    """The twins of one star; what the response says of the search is in `meta`."""
    made = twins_table([response], extra, by_likelihood)
    names = ("star_id", "metric", "k", "searched", "exact")
    made.meta.update({name: response[name] for name in names}, model=identity(response))
    made.meta["within"] = response["fe_h_within"]  # a FITS keyword has 8 characters
    return made


def as_table(stars: Iterable[Star], extra: Mapping[str, str] | None = None) -> Table:
    """Stars as a table with units and UCDs.

    Parameters
    ----------
    stars : iterable of Star
        Those of `Chemtwin.iter_stars`, say.
    extra : mapping of str to str, optional
        The units of the model's extra parameters by name; without it they have no columns.

    Returns
    -------
    Table
        A row for each star.
    """
    rows = [{**vars(star), "warnings": "; ".join(star.warnings)} for star in stars]
    return table(rows, STAR, extra or {})


def spectrum(response: Response) -> Spectrum:
    """The response of POST /recast as a spectrum: flux over the continuum at vacuum wavelengths in Angstrom.

    The detectors' gaps have no pixels. With the star's own residual its masked pixels are masked, and NaN.
    `meta` has `star_id`, `from`, `to`, `computed_at`, `model`, `in_domain`, `residual`, `warnings`.
    """
    from specutils import Spectrum

    flux, sd = np.array(response["flux"], dtype=float), response["flux_sd"]
    names = ("star_id", "from", "to", "computed_at", "in_domain", "residual", "warnings")
    return Spectrum(
        flux=flux * u.dimensionless_unscaled,
        spectral_axis=np.array(response["wavelength"]) * u.AA,
        uncertainty=None if sd is None else StdDevUncertainty(np.array(sd, dtype=float)),
        mask=np.isnan(flux) if response["residual"] else None,
        meta={**{name: response[name] for name in names}, "model": identity(response)},
    )


def observed(response: Response) -> Spectrum:
    """The response of GET /stars/{star_id}/spectrum as a spectrum; masked pixels are masked, and NaN."""
    from specutils import Spectrum

    flux = np.array(response["flux"], dtype=float)
    error = response["error"]
    names = ("star_id", "teff", "logg", "fe_h", "in_domain", "warnings")
    return Spectrum(
        flux=flux * u.dimensionless_unscaled,
        spectral_axis=np.array(response["wavelength"]) * u.AA,
        uncertainty=None if error is None else StdDevUncertainty(np.array(error, dtype=float)),
        mask=np.isnan(flux),
        meta={
            **{name: response[name] for name in names},
            "model": identity(response),
            "reconstruction": np.array(response["reconstruction"]),
        },
    )
