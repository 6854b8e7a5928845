"""The arguments of a search for twins: filters, what is known of a star, identifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

from chemtwin_client import labels, spectra
from chemtwin_client.arrays import column
from chemtwin_client.spectra import Number, Observed

Rank = Literal["distance", "likelihood", "p_same"]


class Filters(TypedDict, total=False):
    """Which stars may be twins: limits of `teff` (K), `logg`, `fe_h` (dex), `snr` and the distance of latents.

    `fe_h_within`: largest |difference| of [Fe/H] to the star, "any" for no limit; by default, if the
    model removes [Fe/H] from the latent, 0.1 widened by the error of the star's [Fe/H]. `in_domain`: True for
    stars inside the model's domain alone, False for those outside alone. `cluster`: only stars of this cluster
    or group; `not_cluster`: none of it.
    """

    teff_min: Number
    teff_max: Number
    logg_min: Number
    logg_max: Number
    fe_h_min: Number
    fe_h_max: Number
    fe_h_within: Number | Literal["any"]
    snr_min: float
    max_distance: float
    in_domain: bool
    cluster: str
    not_cluster: str


class TwinsOf(Filters, Observed, total=False):
    """Filters, and what is known of a star that is not stored."""


def split_keywords(k: int, rank: Rank, keywords: Mapping[str, Any]) -> tuple[dict[str, Any], Observed]:
    """Split keywords into the query string and what is known of the star. Raises TypeError for unknown ones."""
    query: dict[str, Any] = {"k": k, "rank": rank}
    known: dict[str, Any] = {}
    if unknown := sorted(set(keywords) - set(TwinsOf.__annotations__)):
        raise TypeError(f"unexpected keyword {', '.join(map(repr, unknown))}")
    for name, value in keywords.items():
        if name not in Filters.__annotations__:
            known[name] = value
        elif isinstance(value, bool):
            query[name] = "true" if value else "false"
        elif name in ("cluster", "not_cluster"):
            query[name] = value
        elif value is not None:
            label = name.removesuffix("_min").removesuffix("_max").removesuffix("_within")
            query[name] = value if value == "any" else spectra.number(label, value)
    return query, cast(Observed, known)


def check_unknown(known: Observed) -> None:
    """Raise TypeError if anything is said of a star that is stored."""
    if known:
        raise TypeError(
            f"text is the id of a stored star, whose labels the service knows: leave {', '.join(known)} out, "
            "or give a file as pathlib.Path(...)"
        )


def ids(star_ids: Any) -> list[str]:
    """Identifiers as text. Raises ValueError for one that is unknown or no identifier."""
    found = []
    for row, value in enumerate(column("star_ids", star_ids).values):
        try:
            found.append(labels.star_id(value))
        except ValueError as error:
            raise ValueError(f"{error} (row {row} of star_ids)") from None
    return found
