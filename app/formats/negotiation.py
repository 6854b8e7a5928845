"""The form of a response: what `?format=` asks for, failing that what the Accept header prefers."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from app.errors import Invalid, NotAcceptable

MEDIA = {
    "json": ("application/json",),
    "csv": ("text/csv",),
    "votable": ("application/x-votable+xml",),
    "fits": ("application/fits", "image/fits"),
    "png": ("image/png",),
}
"""Media types by the name of the form; the first is that of the response."""

TABLE = ("json", "csv", "votable")
SPECTRUM = ("json", "csv", "fits", "votable")
RECAST = ("json", "csv", "fits", "png", "votable")


def negotiated(request: Request, asked: str | None, offered: Sequence[str]) -> str:
    """The form of the response.

    Parameters
    ----------
    request
        Its Accept header counts where `asked` is None.
    asked
        What `?format=` says.
    offered
        The forms to choose from, the first where the client has no preference.

    Raises
    ------
    Invalid, NotAcceptable
        `?format=` or the Accept header asks for none of them.
    """
    if asked is not None:
        if asked not in offered:
            raise Invalid("invalid_request", f"format: this response comes as {' or '.join(offered)}")
        return asked
    ranges = _ranges(",".join(request.headers.getlist("accept")))
    if not ranges:
        return offered[0]
    scores = {form: max(_score(media, ranges) for media in MEDIA[form]) for form in offered}
    best = max(offered, key=scores.__getitem__)
    if scores[best][0] == 0:
        types = ", ".join(MEDIA[form][0] for form in offered)
        raise NotAcceptable(
            "not_acceptable", f"this response comes as {types}: ask for one by Accept or ?format="
        )
    return best


def _ranges(accept: str) -> list[tuple[str, float]]:
    """The media ranges of an Accept header and their q; what is malformed is left out."""
    ranges = []
    for part in accept.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            quality = float(given.get("q", 1))
        except ValueError:
            continue
        if "/" in media and 0 <= quality <= 1:
            ranges.append((media, quality))
    return ranges


def _score(media: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """The q of the closest range that `media` fits, and how close it is; (0, 0) where none fits."""
    closeness = {media: 3, media.partition("/")[0] + "/*": 2, "*/*": 1}
    fitting = [(closeness[wanted], quality) for wanted, quality in ranges if wanted in closeness]
    if not fitting:
        return 0.0, 0
    close, quality = max(fitting)
    return quality, close
