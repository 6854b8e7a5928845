"""A star's twins: the search, and what a response shows of each star that it finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import Invalid
from app.inference.service import Service
from app.inference.stars import extra_fields
from app.schemas.queries import TwinQuery
from index.search.twin_index import Filters, Search, Twin
from index.stores.star import STAR_TABLE, Brief, Star, covariances_of, extra_of, latents_of, text_number
from model.similarity.p_same import fe_h_difference, p_same, verdict

SHORTLIST = 1000
"""Nearest stars by distance that a ranking by something else looks at."""

FARTHEST = 1e9
"""No two latents lie so far apart; the square of a larger limit might overflow."""

FE_H_WITHIN = 0.1
"""Default |difference| (dex) of twins' exact [Fe/H] when the model removes it from the latent (paper, 6.2)."""

FE_H_SIGMAS = 2.0
"""Standard deviations of the difference of two stars' [Fe/H] by which its errors widen that default."""


def shortlist(query: TwinQuery) -> int:
    """How many of the nearest stars a search has to bring."""
    return query.k if query.rank == "distance" else max(query.k, SHORTLIST)


def twins_of_several(
    service: Service, stars: Sequence[Star], query: TwinQuery
) -> list[dict[str, Any] | Exception]:
    """The twins of several stars, searched for together.

    Parameters
    ----------
    service
        Its catalogue is searched.
    stars
        The stars; those with a `star_id` are not their own twins.
    query
        How many twins, and which.

    Returns
    -------
    list
        For each star in order the response of /twins, or the error of a star that has none.
    """
    most = shortlist(query)
    filters = [_filters(service, star, query) for star in stars]
    searches = [
        Search(star.latent, one, star.star_id or None)  # its own row is left out
        for star, parts in zip(stars, filters, strict=True)
        for one in parts
    ]
    found = iter(service.index.search_batch(searches, most))
    responses: list[dict[str, Any] | Exception] = []
    for star, parts in zip(stars, filters, strict=True):
        twins = sorted(
            chain.from_iterable(islice(found, len(parts))), key=lambda one: (one.distance, one.star_id)
        )
        try:
            responses.append(_response(service, star, query, twins[:most]))
        except Exception as error:
            responses.append(error)
    return responses


def twins_of_one(service: Service, star: Star, query: TwinQuery) -> dict[str, Any]:
    """The response of /twins for one star. Raises Invalid."""
    (response,) = twins_of_several(service, [star], query)
    if isinstance(response, Exception):
        raise response
    return response


def _response(service: Service, star: Star, query: TwinQuery, found: list[Twin]) -> dict[str, Any]:
    by_likelihood = query.rank == "likelihood"
    briefs = service.store.briefs([twin.star_id for twin in found], star.model)
    # a twin deleted or embedded with another model between the search and here is left out
    pairs = [(twin.distance, briefs[twin.star_id]) for twin in found if twin.star_id in briefs]
    ratios: dict[str, float] = {}
    if query.rank != "distance":
        scores = _likelihood_ratios(service, star, pairs) if by_likelihood else _p_same(service, star, pairs)
        if not scores:
            _check_ranked(service, star, pairs)
        pairs = sorted(pairs, key=lambda pair: -scores.get(pair[1].star_id, -np.inf))[: query.k]
        ratios = scores if by_likelihood else {}
    same = _p_same(service, star, pairs)
    rates = service.index.doppelganger_rates([distance for distance, _ in pairs])
    return {
        "star_id": star.star_id or None,
        "k": query.k,
        "model": service.model_name(),
        "metric": service.model.card.metric,
        "searched": len(service.index),
        "fe_h_within": fe_h_within(service, star, query),
        "exact": query.rank == "distance" or len(found) < shortlist(query),
        "in_domain": star.in_domain,
        "warnings": list(star.warnings),
        "twins": [
            {
                "star_id": other.star_id,
                "distance": distance,
                "p_same": same.get(other.star_id),
                "verdict": verdict(same.get(other.star_id), star.in_domain and other.in_domain),
                **({"log_likelihood_ratio": ratios.get(other.star_id)} if by_likelihood else {}),
                "doppelganger_rate": None if rates is None else rates[rank],
                "teff": other.teff,
                "logg": other.logg,
                "fe_h": other.fe_h,
                "fe_h_err": other.fe_h_err,
                **extra_fields(extra_of(other)),
                "snr": other.snr,
                "in_domain": other.in_domain,
                "ra": other.ra,
                "dec": other.dec,
                "cluster": other.cluster,
            }
            for rank, (distance, other) in enumerate(pairs)
        ],
    }


def fe_h_within(service: Service, star: Star, query: TwinQuery) -> float | None:
    """The largest |difference| of [Fe/H] (dex) of a star's twins, None for any.

    Where the query does not say and the model removes [Fe/H] from the latent, it is `FE_H_WITHIN` and, in
    quadrature, `FE_H_SIGMAS` of the difference's error. Both stars' errors are taken to be the star's own.
    """
    if query.fe_h_within is not None:
        return None if query.fe_h_within == "any" else query.fe_h_within
    if "fe_h" not in service.model.parameter_names:
        return None
    return math.hypot(FE_H_WITHIN, FE_H_SIGMAS * math.sqrt(2) * (star.fe_h_err or 0.0))


def _filters(service: Service, star: Star, query: TwinQuery) -> list[Filters]:
    """The filters of a star's searches, whose results are merged: two where a cluster is left out."""
    ranges, given = [], vars(query)
    for name in STAR_TABLE.searched:
        low, high = given.get(f"{name}_min"), given.get(f"{name}_max")
        if low is not None or high is not None:
            ranges.append((name, -np.inf if low is None else low, np.inf if high is None else high))
    if query.in_domain is not None:
        ranges.append(("in_domain", query.in_domain, query.in_domain))
    within = fe_h_within(service, star, query)
    if within is not None:
        ranges.append(("fe_h", star.fe_h - within, star.fe_h + within))
    if query.cluster is not None:
        number = text_number(query.cluster)
        ranges.append(("cluster", number, number))
    farthest = query.max_distance
    limit = np.inf if farthest is None or farthest > FARTHEST else farthest
    if query.not_cluster is None:
        return [Filters(tuple(ranges), limit)]
    number = text_number(query.not_cluster)
    others = (-np.inf, number - 1), (number + 1, np.inf)
    return [Filters((*ranges, ("cluster", low, high)), limit) for low, high in others]


def _check_ranked(service: Service, star: Star, pairs: list[tuple[float, Brief]]) -> None:
    """Raise Invalid where not a single star can be ranked but by distance, unless all came without errors."""
    if star.covariance is None:
        raise Invalid("no_errors", f"{star.star_id or 'the star'} came without ivar or error: rank by distance")
    if any(other.covariance is not None for _, other in pairs):
        raise Invalid("not_ranked_so", f"{service.model.card.method} ranks by distance only")


def _likelihood_ratios(service: Service, star: Star, pairs: list[tuple[float, Brief]]) -> dict[str, float]:
    """Log likelihood ratios by star id; stars without errors have none."""
    known = [other for _, other in pairs if other.covariance is not None]
    if star.covariance is None or not known:
        return {}
    ratios = service.model.likelihood_ratios(
        star.latent.astype(np.float64),
        star.covariance.astype(np.float64),
        latents_of(known),
        covariances_of(known),
    )
    return {} if ratios is None else _by_id(known, ratios)


def _p_same(service: Service, star: Star, pairs: list[tuple[float, Brief]]) -> dict[str, float]:
    """How often true twins lie as far apart, by star id; stars without errors have none."""
    known = [(distance, other) for distance, other in pairs if other.covariance is not None]
    if star.covariance is None or not known:
        return {}
    others = [other for _, other in known]
    covariance = service.model.pair_covariance(star.covariance[None].astype(np.float64), covariances_of(others))
    if covariance is None:
        return {}
    away = None
    if "fe_h" in service.model.parameter_names:
        fe_h, error = np.array([(other.fe_h, other.fe_h_err or 0.0) for other in others]).T
        away = fe_h_difference(fe_h, error, star.fe_h, star.fe_h_err or 0.0)
    return _by_id(others, p_same(np.array([distance for distance, _ in known]), covariance, away))


def _by_id(stars: Sequence[Brief], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip((star.star_id for star in stars), values.tolist(), strict=True))
