"""The service's calls as methods."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

import orjson
from astropy.table import Table
from astropy.units import Quantity
from numpy.typing import ArrayLike

from chemtwin_client import bulk, labels, responses, spectra
from chemtwin_client.arguments import Filters, Rank, TwinsOf, check_unknown, ids, split_keywords
from chemtwin_client.errors import Busy, ChemtwinWarning, Unreachable
from chemtwin_client.responses import Embedded, Response, Star
from chemtwin_client.spectra import Observed, Source
from chemtwin_client.stars import Stars
from chemtwin_client.transport import Transport, in_path

if TYPE_CHECKING:
    from specutils import Spectrum

PAGE = 1000
"""Stars of one page of /stars; the service gives no more."""


class Chemtwin:
    """A Chemtwin service.

    Every method raises ChemtwinError, with the service's own message, for an error response: `Unreachable`,
    `Unauthorized`, `NotFound`, `InvalidRequest` or `Busy`. Warnings of the service are ChemtwinWarnings too. A
    Chemtwin may be used from several threads, and as a context manager.

    Parameters
    ----------
    url : str, optional
        The service's address, by default that of the variable CHEMTWIN_URL, or http://localhost:8000.
    key : str, optional
        The key for a service that needs one, by default that of CHEMTWIN_KEY. It is never shown.
    timeout : float
        Seconds to wait for a response.
    retries : int
        How often a request is repeated while the service is busy (503), after the pause that it suggests.

    Raises
    ------
    ValueError
        For an address or a key that no request can carry.
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

    def __exit__(self, *_: object) -> None:
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
        """Store a star; it is on the service's disk when this returns.

        A star of the same id is replaced. Its position and `meta` stay unless they are given too.

        Parameters
        ----------
        source : path, Spectrum or array (P,)
            An apStar, aspcapStar, mwmStar or mwmVisit file; or a specutils Spectrum, whose units, uncertainty,
            mask and radial velocity are used; or the flux.
        **known
            See `Observed`. `star_id`, `teff`, `logg` and `fe_h` are needed unless a file has them.

        Returns
        -------
        Embedded
            The star's latent, with warnings.

        Raises
        ------
        ChemtwinError
            If the service reports an error.
        TypeError, ValueError, UnitsError, OSError
            For what cannot be sent, as `chemtwin_client.spectra.body` raises them.
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
        """Store many stars, 64 in a request, with a progress bar; an invalid star does not stop the rest.

        Parameters
        ----------
        sources : array (N, P) or sequence of N sources
            Fluxes, also an h5py dataset, which is read in blocks; or paths, Spectra or arrays.
        labels : table or mapping of columns
            N rows, by position: `star_id`, `teff`, `logg`, `fe_h`, the model's extra parameters, optional
            `teff_err` and so on, `ra`, `dec`. Other columns are stored as `meta`, but not with files.
        wavelength : array (P,), optional
            Common to all fluxes, in vacuum, in Angstrom or a Quantity.
        ivar, error, bitmask : array (N, P), optional
            As in `Observed`; `ivar` or `error`.
        normalized : bool, optional
            Whether the fluxes are divided by a continuum.
        skip_stored : bool
            Do not send a star whose id this model has stored: an interrupted call goes on where it was.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Table
            A row per star, in order: `star_id`; `outcome` (stored, replaced, skipped, refused); `code` and
            `message` of an error; the fields of `Embedded`, NaN where there are none; `meta["model"]`. A star
            without id or label, or with the id of an earlier row, is refused and not sent.

        Raises
        ------
        TypeError, ValueError, UnitsError
            Before any star is sent, as `Stars` raises them.
        ChemtwinError
            The service reports an error that is not of single stars.

        Warns
        -----
        ChemtwinWarning
            Names the columns that are not used or stored. Another one at the end counts the stars with
            warnings, those outside the model's domain, and those with errors.
        """
        card = self.model()
        arrays = {"ivar": ivar, "error": error, "bitmask": bitmask}
        stars = Stars(sources, labels, wavelength, arrays, normalized, responses.extra_units(card))
        _warn(None, stars.notes)
        done = bulk.embed_many(self._transport, stars, responses.identity(card), skip_stored, progress)
        _warn(None, bulk.summary(done))
        return done

    def twins(
        self, star: str | Source, k: int = 10, *, rank: Rank = "distance", **keywords: Unpack[TwinsOf]
    ) -> Table:
        """Find the k chemically nearest stars, nearest first.

        Parameters
        ----------
        star : str, path, Spectrum or array (P,)
            A stored star's id; or a source as `embed` takes it (a file as pathlib.Path), which is not stored.
        k : int
            Number of twins.
        rank : {"distance", "likelihood", "p_same"}
            Order by the distance of latents, by the likelihood ratio of same against different chemistry, or by
            ``p_same``.
        **keywords
            See `Filters` and, for a star that is not stored, `Observed`.

        Returns
        -------
        Table
            Columns have units, descriptions and UCDs. `meta` has `star_id` (None without one), `model`,
            `metric`, `k`, `searched`, `exact`, `within` (the limit of [Fe/H] in dex, None for
            any); of a source also `in_domain` and `warnings`. `star` has those of a stored star.

        Warns
        -----
        ChemtwinWarning
            What to mind of the star, whether it is stored or not.
        """
        query, known = split_keywords(k, rank, keywords)
        if stored := labels.is_id(star):
            check_unknown(known)
            response = self._transport.json("GET", f"/twins/{in_path(star)}", query)
        else:
            body = spectra.body(star, known, self._units_of(known))
            response = self._transport.json("POST", "/twins", query | body.query, body.content, body.kind)
        _warn(response["star_id"], response["warnings"])
        made = responses.twins_of_one(response, self._extra_units([response]), rank == "likelihood")
        if not stored:
            made.meta.update(in_domain=response["in_domain"], warnings=response["warnings"])
        return made

    def twins_many(
        self,
        star_ids: Sequence[str],
        k: int = 10,
        *,
        rank: Rank = "distance",
        progress: bool = True,
        **filters: Unpack[Filters],
    ) -> Table:
        """Find the twins of many stored stars; column `asked_star_id` says whose they are.

        Parameters
        ----------
        star_ids : sequence of str
            The stars' ids.
        k : int
            Number of twins of each.
        rank : {"distance", "likelihood", "p_same"}
            As in `twins`.
        progress : bool
            Show a progress bar.
        **filters
            See `Filters`.

        Returns
        -------
        Table
            `meta` has `model`, `metric` and `exact` (of all). If some stars have errors, `meta["refused"]` has
            their messages by id, which come as ChemtwinWarnings too.

        Raises
        ------
        ValueError
            For an id that is unknown or a floating-point number.
        """
        query, known = split_keywords(k, rank, filters)
        check_unknown(known)
        searched, found, errors = bulk.twins_many(self._transport, ids(star_ids), query, progress)
        for star_id, message in errors.items():
            _warn(star_id, [message])
        made = responses.twins_table(found, self._extra_units(found), rank == "likelihood", searched)
        if errors:
            made.meta["refused"] = errors
        if found:
            made.meta.update(model=responses.identity(found[0]), metric=found[0]["metric"])
            made.meta["exact"] = all(response["exact"] for response in found)
        return made

    def recast(
        self, star: str | Source, to: Mapping[str, Any], *, residual: bool = False, **known: Unpack[Observed]
    ) -> Spectrum:
        """Show a star at other parameters: its spectrum over the continuum, as a specutils Spectrum.

        Parameters
        ----------
        star : str, Spectrum or array (P,)
            A stored star's id; or a Spectrum or flux as `embed` takes it.
        to : mapping
            Any of `teff` (K), `logg`, `fe_h` (dex), and `parameters`, a mapping of extra ones. The rest are
            the star's own. To compare siblings, give a common `teff` and `logg` and leave `fe_h` out.
        residual : bool
            Add the star's own residual: its observed flux less the model's reconstruction. Of a stored star the
            service needs the spectrum.
        **known
            See `Observed`, for a star that is not stored.

        Returns
        -------
        Spectrum
            Wavelengths are in vacuum, in Angstrom, without pixels between the detectors; the uncertainty is
            that of the latent, with `residual` that of the noise too; `meta` has `star_id`, `from`, `to`,
            `computed_at` (where the flux is computed, if `to` is too far outside the training range), `model`,
            `in_domain`, `residual`, `warnings`.

        Raises
        ------
        TypeError
            For a file: embed it first; and where `to` is no mapping.
        """
        to = labels.mapping("to", to)
        units = self._units_of(known) or self._units_of(to)
        wish: dict[str, Any] = {"to": {**to, **labels.given(to, units)}, "residual": residual}
        if labels.is_id(star):
            check_unknown(known)
            in_path(star)
            wish["star_id"] = labels.star_id(star)
        elif spectra.is_file(star):
            raise TypeError("a file cannot be recast unseen: embed it, then recast it by its star_id")
        else:
            known.pop("star_id", None)
            wish["spectrum"] = spectra.star(star, known, units)
        content = orjson.dumps(wish, option=orjson.OPT_SERIALIZE_NUMPY)
        response = self._transport.json("POST", "/recast", body=content)
        _warn(response["star_id"], response["warnings"])
        return responses.spectrum(response)

    def spectrum(self, star_id: str) -> Spectrum:
        """The observed spectrum of a stored star: its flux over the continuum, as a specutils Spectrum.

        Parameters
        ----------
        star_id : str
            The star's id.

        Returns
        -------
        Spectrum
            As the model sees it: normalised, on the model's pixels, in vacuum and at rest, in Angstrom. Masked
            pixels are masked, and NaN. The uncertainty is the noise, None for a star without errors; `meta` has
            `star_id`, `model`, `in_domain`, `warnings`, `teff`, `logg`, `fe_h`, and `reconstruction` (P,), the
            model's own spectrum of the star.

        Raises
        ------
        NotFound
            The service has no such star, or did not store its spectrum.
        """
        path = f"/stars/{in_path(star_id)}/spectrum"
        return responses.observed(self._transport.json("GET", path, {"observed": "true"}))

    def abundances(self, star_id: str) -> Table:
        """[X/Fe] of a stored star by its latent: `element`, `x_fe`, `x_fe_err` (dex; NaN without errors)."""
        response = self._transport.json("GET", f"/stars/{in_path(star_id)}/abundances")
        _warn(star_id, response["warnings"])
        made = responses.table(response["abundances"], ("element", "x_fe", "x_fe_err"), {})
        made.meta.update(star_id=star_id, model=responses.identity(response), in_domain=response["in_domain"])
        return made

    def star(self, star_id: str) -> Star:
        """A stored star."""
        return Star.of(self._transport.json("GET", f"/stars/{in_path(star_id)}"))

    def iter_stars(self, cluster: str | None = None) -> Iterator[Star]:
        """All stored stars, or those of a cluster, in the order of their ids, fetched a page at a time."""
        only = {} if cluster is None else {"cluster": cluster}
        after: str | None = ""
        while after is not None:
            page = self._transport.json("GET", "/stars", {"after": after, "limit": PAGE, **only})
            yield from map(Star.of, page["stars"])
            after = page["next"]

    def stars(self, cluster: str | None = None) -> Table:
        """All stored stars, or those of a cluster, as a table, with their latents (N, D)."""
        return responses.as_table(self.iter_stars(cluster), responses.extra_units(self.model()))

    def delete(self, star_id: str) -> None:
        """Delete a star; it is gone from the service's disk when this returns."""
        self._transport.json("DELETE", f"/stars/{in_path(star_id)}")

    def _extra_units(self, found: Sequence[Response]) -> dict[str, str]:
        """The units of the model's extra parameters, if the twins have such or there are no twins."""
        twins = [twin for response in found for twin in response["twins"]]
        return responses.extra_units(self.model()) if not twins or "parameters" in twins[0] else {}

    def _units_of(self, known: Mapping[str, Any]) -> dict[str, str] | None:
        """The units of the model's extra parameters, if some are given as Quantities."""
        names = [name for name in ("parameters", "parameters_err") if known.get(name) is not None]
        given = [value for name in names for value in labels.mapping(name, known[name]).values()]
        quantities = any(isinstance(value, Quantity) for value in given)
        return responses.extra_units(self.model()) if quantities else None


def _warn(star_id: str | None, messages: Sequence[str]) -> None:
    for text in messages:
        warnings.warn(f"{star_id}: {text}" if star_id else text, ChemtwinWarning, stacklevel=3)
