"""The service's calls as methods."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack, cast

import orjson
from astropy.table import Table
from astropy.units import Quantity
from numpy.typing import ArrayLike

from chemtwin_client import answers, bulk, labels, spectra
from chemtwin_client.answers import Answer, Embedded, Star
from chemtwin_client.arrays import column
from chemtwin_client.errors import Busy, ChemtwinWarning, Unreachable
from chemtwin_client.spectra import Number, Observed, Source
from chemtwin_client.stars import Stars
from chemtwin_client.transport import Transport, in_path

if TYPE_CHECKING:
    from specutils import Spectrum

Rank = Literal["distance", "likelihood"]
PAGE = 1000
"""Stars of one page of /stars; the service gives no more."""


class Filters(TypedDict, total=False):
    """Which stars may be twins: limits of `teff` (K), `logg`, `fe_h` (dex), `snr` and the distance of latents.

    `fe_h_within`: largest |difference| of [Fe/H] to the star, "any" for no limit; by default 0.1 if the model
    removes [Fe/H] from the latent. `in_domain`: True for stars inside the model's domain alone,
    False for those outside alone.
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


class TwinsOf(Filters, Observed, total=False):
    """Filters, and what is known of a star that is not stored."""


class Chemtwin:
    """A Chemtwin service.

    `url`: its address, by default that of the variable CHEMTWIN_URL or http://localhost:8000. `key`: where it
    asks for one, by default that of CHEMTWIN_KEY; it is never shown. `timeout`: seconds to wait for an answer.
    `retries`: how often a busy service (503) is asked again, after the pause that it wishes for. Raises
    ValueError for an address or a key that no request can carry.

    Every method raises ChemtwinError, with the service's own message, for an answer other than success:
    `Unreachable`, `Unauthorized`, `NotFound`, `Refused` or `Busy`. What the service asks to mind comes as a
    ChemtwinWarning too. It may be used from several threads, and as a context manager.
    """

    def __init__(
        self, url: str | None = None, *, key: str | None = None, timeout: float = 60.0, retries: int = 5
    ) -> None:
        self._transport = Transport(
            url or os.environ.get("CHEMTWIN_URL") or "http://localhost:8000",
            key if key is not None else os.environ.get("CHEMTWIN_KEY"),
            timeout,
            retries,
        )

    def __repr__(self) -> str:
        return f"Chemtwin({self._transport.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        """Return when a service that is starting is ready. Raises the last ChemtwinError after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(Unreachable, Busy):
                self._transport.json("GET", "/readyz")
                return
            time.sleep(0.1)
        self._transport.json("GET", "/readyz")

    def model(self) -> dict[str, Any]:
        """The model card: `model`, `latent_dim`, `parameters` and their ranges, `grid`, `quality`..."""
        return cast(dict[str, Any], self._transport.json("GET", "/model"))

    def embed(self, source: Source | str, **known: Unpack[Observed]) -> Embedded:
        """Store a star; it is on the service's disk when this returns. A star of the same id is replaced.

        `source`: the path of an apStar, aspcapStar, mwmStar or mwmVisit file; or a specutils Spectrum (its
        units, uncertainty, mask and radial velocity are minded); or the flux (P,) as an array. `known`: see
        `Observed`; `star_id`, `teff`, `logg` and `fe_h` are needed unless a file brings them. Wavelengths are
        in vacuum.

        Raises ChemtwinError; and before anything is sent what `chemtwin_client.spectra.body` does.
        """
        body = spectra.body(source, known, self._units_of(known))
        done = Embedded.of(self._transport.json("POST", "/embed", body.query, body.content, body.kind))
        _warn(done.star_id, done.warnings)
        return done

    def embed_many(
        self,
        sources: Sequence[Source | str] | ArrayLike,
        labels: Table | Mapping[str, ArrayLike],
        *,
        wavelength: ArrayLike | None = None,
        ivar: ArrayLike | None = None,
        error: ArrayLike | None = None,
        bitmask: ArrayLike | None = None,
        normalized: bool | None = None,
        skip_stored: bool = False,
        progress: bool = True,
    ) -> Table:
        """Store many stars, 64 in a request, with a progress bar; a bad star does not stop the others.

        `sources`: fluxes (N, P), also an h5py dataset, which is read in blocks; or N paths, Spectra or arrays.
        `labels`: N rows with columns `star_id`, `teff`, `logg`, `fe_h`, optional `teff_err`, `logg_err`,
        `fe_h_err`, `ra`, `dec`, and the model's further parameters; other columns of text or numbers are
        stored as `meta`, but not with files. `wavelength` (P,) is common; `ivar` or `error` and `bitmask` are
        (N, P). All go together by position; indexes of pandas must not contradict it. With `skip_stored` a star
        whose id this model has stored is not sent again, whatever its spectrum: an interrupted call goes on
        where it was.

        Returns a row per star, in order: `star_id`; `outcome` (stored, replaced, skipped, refused); `code`
        and `message` of a refusal; `snr`, `chi2`, `masked_fraction`, `in_domain`, `warnings`, `latent`,
        `latent_sd` as in `Embedded`, NaN where there are none; `meta["model"]`. A star is refused without
        being sent where its id or a label is unknown, or the id stands in an earlier row.

        Raises ValueError where lengths or indexes of pandas disagree, UnitsError for a unit that cannot be
        converted, TypeError for what is no table or has no order, all before a star is sent; and ChemtwinError
        where the service refuses more than single stars. A ChemtwinWarning names the columns that are not
        stored, or not used though their names suggest it; another one at the end counts the stars with
        warnings, those outside the model's domain, and those refused.
        """
        card = self.model()
        arrays = {"ivar": ivar, "error": error, "bitmask": bitmask}
        stars = Stars(
            sources,
            labels,
            wavelength,
            {name: values for name, values in arrays.items() if values is not None},
            normalized,
            _units(card),
        )
        _warn(None, stars.notes)
        done = bulk.embed_many(self._transport, stars, answers.identity(card), skip_stored, progress)
        if summary := bulk.summary(done):
            _warn(None, [summary])
        return done

    def twins(
        self, star: str | Source, k: int = 10, *, rank: Rank = "distance", **keywords: Unpack[TwinsOf]
    ) -> Table:
        """The k chemically nearest stars, nearest first: columns with units, descriptions and UCDs.

        `star`: a stored star's id; or a source as `embed` takes it (a file as pathlib.Path), which is not
        stored, with what is known of it. `rank="likelihood"` orders by the likelihood ratio of same against
        different chemistry. Further keywords: see `Filters` and `Observed`. `meta` of the table:
        `star_id` of the star that you asked for (None without one), `model`, `metric`, `k`, `searched`,
        `exact`; of a source also `in_domain` and `warnings`.
        """
        query, known = _filters(k, rank, keywords)
        if labels.is_id(star):
            _nothing_known(known)
            answer = self._transport.json("GET", f"/twins/{in_path(star)}", query)
        else:
            body = spectra.body(star, known, self._units_of(known))
            answer = self._transport.json("POST", "/twins", query | body.query, body.content, body.kind)
            _warn(answer["star_id"], answer["warnings"])
        found = answers.twins_table([answer], self._further([answer]), rank == "likelihood")
        names = ("metric", "k", "searched", "exact", "in_domain", "warnings")
        found.meta.update(
            star_id=answer["star_id"],
            model=answers.identity(answer),
            **{name: answer[name] for name in names if name in answer},
        )
        return found

    def twins_many(
        self,
        star_ids: Sequence[str],
        k: int = 10,
        *,
        rank: Rank = "distance",
        progress: bool = True,
        **filters: Unpack[Filters],
    ) -> Table:
        """The twins of many stored stars, below one another; column `asked_star_id` says whose they are.

        If the service refuses single stars, the table's `meta["refused"]` has a message by id, which comes
        as a ChemtwinWarning; `meta` has `model`, `metric` and `exact` (of all) too. Raises ValueError for an
        id that is unknown or a floating-point number.
        """
        query, known = _filters(k, rank, filters)
        _nothing_known(known)
        asked, found, refused = bulk.twins_many(self._transport, _ids(star_ids), query, progress)
        for star_id, message in refused.items():
            _warn(star_id, [message])
        made = answers.twins_table(found, self._further(found), rank == "likelihood", asked)
        if refused:
            made.meta["refused"] = refused
        if found:
            made.meta.update(model=answers.identity(found[0]), metric=found[0]["metric"])
            made.meta["exact"] = all(answer["exact"] for answer in found)
        return made

    def recast(self, star: str | Source, to: Mapping[str, Any], **known: Unpack[Observed]) -> Spectrum:
        """The spectrum that a star would show at other parameters, over its continuum, as a specutils Spectrum.

        `star`: a stored star's id; or a Spectrum or flux as `embed` takes it, with what is known of it. `to`:
        any of `teff` (K), `logg`, `fe_h` (dex), and `parameters` of a further kind, as a mapping; what is left
        out stays the star's own. Wavelengths are in vacuum, in Angstrom, without pixels between the detectors;
        the uncertainty is that of the latent; `meta` holds `star_id`, `from`, `to`, `model`, `in_domain`,
        `warnings`.
        Raises TypeError for a file: embed it first; and where `to` is no mapping.
        """
        to = labels.mapping("to", to)
        units = self._units_of(known) or self._units_of(to)
        wish: dict[str, Any] = {"to": {**to, **labels.given(to, units)}}
        if labels.is_id(star):
            _nothing_known(known)
            in_path(star)
            wish["star_id"] = labels.star_id(star)
        elif spectra.is_file(star):
            raise TypeError("a file cannot be recast unseen: embed it, then recast it by its star_id")
        else:
            known.pop("star_id", None)
            wish["spectrum"] = spectra.star(star, known, units)
        content = orjson.dumps(wish, option=orjson.OPT_SERIALIZE_NUMPY)
        answer = self._transport.json("POST", "/recast", body=content)
        _warn(answer["star_id"], answer["warnings"])
        return answers.spectrum(answer)

    def abundances(self, star_id: str) -> Table:
        """[X/Fe] of a stored star by its latent: `element`, `x_fe`, `x_fe_err` (dex; NaN without errors)."""
        answer = self._transport.json("GET", f"/stars/{in_path(star_id)}/abundances")
        _warn(star_id, answer["warnings"])
        made = answers.table(answer["abundances"], ("element", "x_fe", "x_fe_err"), {})
        made.meta.update(star_id=star_id, model=answers.identity(answer), in_domain=answer["in_domain"])
        return made

    def star(self, star_id: str) -> Star:
        """A stored star."""
        return Star.of(self._transport.json("GET", f"/stars/{in_path(star_id)}"))

    def iter_stars(self) -> Iterator[Star]:
        """All stored stars in the order of their ids, fetched a page at a time."""
        after: str | None = ""
        while after is not None:
            page = self._transport.json("GET", "/stars", {"after": after, "limit": PAGE})
            yield from map(Star.of, page["stars"])
            after = page["next"]

    def stars(self) -> Table:
        """All stored stars as a table, with their latents (N, D)."""
        card = self.model()
        return answers.as_table(self.iter_stars(), _units(card))

    def delete(self, star_id: str) -> None:
        """Delete a star; it is gone from the service's disk when this returns."""
        self._transport.json("DELETE", f"/stars/{in_path(star_id)}")

    def _further(self, found: Sequence[Answer]) -> dict[str, str]:
        """The units of the model's further parameters, if the twins have such or there are no twins."""
        twins = [twin for answer in found for twin in answer["twins"]]
        return _units(self.model()) if not twins or "parameters" in twins[0] else {}

    def _units_of(self, known: Mapping[str, Any]) -> dict[str, str] | None:
        """The units of the model's further parameters, if some are given as Quantities."""
        names = [name for name in ("parameters", "parameters_err") if known.get(name) is not None]
        given = [value for name in names for value in labels.mapping(name, known[name]).values()]
        return _units(self.model()) if any(isinstance(value, Quantity) for value in given) else None


def _units(card: Mapping[str, Any]) -> dict[str, str]:
    """The units of the model's parameters beyond Teff, log g and [Fe/H], by name."""
    return {name: one.get("unit", "") for name, one in card["parameters"].items() if name not in labels.NEEDED}


def _ids(star_ids: Any) -> list[str]:
    """Identifiers as text. Raises ValueError for one that is unknown or no identifier."""
    found = []
    for row, value in enumerate(column("star_ids", star_ids).values):
        try:
            found.append(labels.star_id(value))
        except ValueError as error:
            raise ValueError(f"{error} (row {row} of star_ids)") from None
    return found


def _filters(k: int, rank: Rank, keywords: Mapping[str, Any]) -> tuple[dict[str, Any], Observed]:
    """The query string, and the keywords that are no filters."""
    query: dict[str, Any] = {"k": k, "rank": rank}
    known: dict[str, Any] = {}
    if unknown := sorted(set(keywords) - set(TwinsOf.__annotations__)):
        raise TypeError(f"unexpected keyword {', '.join(map(repr, unknown))}")
    for name, value in keywords.items():
        if name not in Filters.__annotations__:
            known[name] = value
        elif isinstance(value, bool):
            query[name] = "true" if value else "false"
        elif value is not None:
            label = name.removesuffix("_min").removesuffix("_max").removesuffix("_within")
            query[name] = value if value == "any" else spectra.number(label, value)
    return query, cast(Observed, known)


def _nothing_known(known: Observed) -> None:
    if known:
        raise TypeError(f"of a stored star the service knows all: leave {', '.join(known)} out")


def _warn(star_id: str | None, told: Sequence[str]) -> None:
    for text in told:
        warnings.warn(f"{star_id}: {text}" if star_id else text, ChemtwinWarning, stacklevel=3)
