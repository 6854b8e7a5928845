"""Positions on the sky as users and files have them."""

from __future__ import annotations

from index.stores.sky import Circle
from model.spectra.star_file import designated_position

FAR = 1 / 60
"""Degrees between two positions of one star from which on a warning says so."""


def position(ra: float | None, dec: float | None) -> tuple[float | None, float | None]:
    """A position as the store has it, right ascension from 0 to 360 degrees; Nones for what is no position.

    Files have right ascensions from -180 to 180 as well, and NaN or numbers like -9999 where there is none.
    """
    if ra is None or dec is None or not (-180 <= ra <= 360 and -90 <= dec <= 90):
        return None, None
    return (ra + 360 if ra < 0 else ra), dec


def left_out(ra: float | None, dec: float | None) -> tuple[str, ...]:
    """A warning where numbers were given that are no position, and so are not stored."""
    given = {name: value for name, value in (("ra", ra), ("dec", dec)) if value is not None and value == value}
    if not given or position(ra, dec) != (None, None):
        return ()
    stated = ", ".join(f"{name} = {value:g}" for name, value in given.items())
    return (f"{stated} is no position in degrees, and was left out",)


def apart(
    first: tuple[float | None, float | None] | None, second: tuple[float | None, float | None] | None
) -> float:
    """Degrees between two positions (ra, dec), 0 where one is unknown."""
    if first is None or second is None or None in first or None in second:
        return 0.0
    (ra, dec), (other_ra, other_dec) = first, second
    assert ra is not None
    assert dec is not None
    assert other_ra is not None
    assert other_dec is not None
    return float(Circle(ra, dec, 0.0).separation([other_ra], [other_dec])[0])


def odd_position(star_id: str, ra: float | None, dec: float | None) -> tuple[str, ...]:
    """A warning where a star's position is far from the one that its 2MASS designation states."""
    degrees = apart(designated_position(star_id), (ra, dec))
    if degrees <= FAR:
        return ()
    return (f"the position is {degrees:.2g} degrees from the one in the id {star_id}: is it another star?",)
