"""Star ids: which texts may name a star."""

from __future__ import annotations

import re

from app.errors import Invalid
from app.values.identifiers_and_numbers import UNKNOWN, lost_digits

STAR_ID = r"^[A-Za-z0-9][A-Za-z0-9+._:-]{0,63}\Z"


def check_star_id(star_id: str) -> None:
    """Raise Invalid for an id that has another form, or that stands for "unknown" or for a rounded number."""
    if re.match(STAR_ID, star_id) is None:
        raise Invalid("bad_star_id", f"{star_id[:64]!r} is not a star id: it must match {STAR_ID}")
    if star_id.lower() in UNKNOWN or lost_digits(star_id):
        raise Invalid(
            "bad_star_id",
            f"{star_id!r} is not a star id: it stands for an unknown id, or for a floating-point number that "
            "has lost digits. Write ids as text.",
        )
