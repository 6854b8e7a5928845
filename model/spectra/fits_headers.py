"""Check the sizes that a FITS file's headers announce against its length, before anything is allocated.

The headers are read as the FITS standard (4.0, chapters 3, 4.4 and 7) lays them down: blocks of 2,880 bytes,
cards of 80, and sizes in BITPIX, NAXIS, NAXISn, PCOUNT and GCOUNT.
"""

from __future__ import annotations

import math
import re

from model.errors import FormatError

BLOCK_BYTES, CARD_BYTES = 2880, 80
MAX_HDUS = 64
MAX_CARDS = 3600
"""In one header; an apStar's primary header has about 140."""

MAX_ROWS = 1000
"""Of a table, and of an image: APOGEE has looked at no star so often."""

BITPIX = {8, 16, 32, 64, -32, -64}
SIZES = re.compile(rb"\s*(?:HIERARCH\s+)?(BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|TFIELDS|TFORM\d+)\s*(?:=|\s|\Z)")
"""A card that a reader might take for a statement of size."""

INTEGER = re.compile(rb" *([+-]?\d{1,15}) *(/|\Z)")
VARIABLE = re.compile(rb" *'\s*\d*[PQpq]")


def sound_length(content: bytes) -> int:
    """The length in bytes of the complete HDUs at the beginning of `content`.

    Raises FormatError where a header is damaged, announces more bytes than there are, or where there is more
    of anything than an APOGEE file has.
    """
    offset = 0
    for number in range(MAX_HDUS):
        if offset >= len(content) or (number and not content.startswith(b"XTENSION", offset)):
            return min(offset, len(content))
        cards, offset = _header(content, offset, number)
        size = _data_size(cards, number)
        if size > len(content) - offset:
            raise FormatError(
                "bad_fits",
                f"HDU {number} announces more data than the {len(content) - offset} bytes that are there",
            )
        offset += -(-size // BLOCK_BYTES) * BLOCK_BYTES
    raise FormatError("unknown_fits", f"the FITS file has {MAX_HDUS} HDUs or more")


def _header(content: bytes, start: int, number: int) -> tuple[dict[bytes, bytes], int]:
    """The cards that state sizes, each once and of standard form, and the offset of the data."""
    cards: dict[bytes, bytes] = {}
    for offset in range(start, start + MAX_CARDS * CARD_BYTES, CARD_BYTES):
        card = content[offset : offset + CARD_BYTES]
        if len(card) < CARD_BYTES:
            raise FormatError("bad_fits", f"the FITS file ends within the header of HDU {number}")
        if card.rstrip() == b"END":
            return cards, start + -(-(offset + CARD_BYTES - start) // BLOCK_BYTES) * BLOCK_BYTES
        if found := SIZES.match(card.upper()):
            keyword = found[1]
            if card[:10] != keyword.ljust(8) + b"= " or keyword in cards:
                raise FormatError(
                    "bad_fits", f"the header of HDU {number} is ambiguous about {keyword.decode()[:8]}"
                )
            cards[keyword] = card[10:]
    raise FormatError("bad_fits", f"the header of HDU {number} has more than {MAX_CARDS} cards")


def _data_size(cards: dict[bytes, bytes], number: int) -> int:
    def integer(name: bytes, default: int | None = None) -> int:
        if name not in cards and default is not None:
            return default
        found = INTEGER.match(cards.get(name, b"x"))
        if not found:
            raise FormatError("bad_fits", f"the header of HDU {number} has no sound {name.decode()}")
        return int(found[1])

    axes = integer(b"NAXIS")
    if not 0 <= axes <= 999:
        raise FormatError("bad_fits", f"the header of HDU {number} has no sound NAXIS")
    shape = [integer(b"NAXIS%d" % axis) for axis in range(1, axes + 1)]
    bits, pcount, gcount = integer(b"BITPIX"), integer(b"PCOUNT", 0), integer(b"GCOUNT", 1)
    if bits not in BITPIX or pcount < 0 or gcount != 1 or b"GROUPS" in cards or any(n < 0 for n in shape):
        raise FormatError("bad_fits", f"the header of HDU {number} announces an impossible size")
    if axes > 1 and shape[1] > MAX_ROWS:
        raise FormatError(
            "unknown_fits",
            f"HDU {number} has {shape[1]} rows, and no file of one star more than {MAX_ROWS}. "
            "Send each star's own file.",
        )
    if not 0 <= integer(b"TFIELDS", 0) <= 999:
        raise FormatError("bad_fits", f"the header of HDU {number} has no sound TFIELDS")
    if any(VARIABLE.match(card) for name, card in cards.items() if name.startswith(b"TFORM")):
        raise FormatError(
            "unknown_fits",
            f"HDU {number} has columns of variable length, as tile-compressed (.fz) files have and no APOGEE "
            "file: run funpack on it",
        )
    return (pcount + math.prod(shape)) * abs(bits) // 8 if axes else 0
