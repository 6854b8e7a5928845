"""Gzipped files, unpacked under a limit."""

from __future__ import annotations

import zlib

from model.errors import FormatError

MAGIC = b"\x1f\x8b"
MAX_UNPACKED = 256_000_000
"""Bytes, unless a caller gives another limit; an apStar of 50 visits has 25 MB."""

GZIP = 16 + zlib.MAX_WBITS


def unpacked(content: bytes, most_bytes: int = MAX_UNPACKED) -> bytes:
    """The content of a gzipped file, or the bytes themselves if they are not gzipped.

    Raises FormatError where they are damaged, or would unpack to more than `most_bytes`: no more is unpacked.
    """
    if not content.startswith(MAGIC):
        return content
    member = zlib.decompressobj(GZIP)
    try:
        whole = member.decompress(content, most_bytes + 1)
    except zlib.error as error:
        raise FormatError("bad_gzip", f"the gzipped file is damaged: {error}") from None
    if len(whole) > most_bytes:
        raise FormatError(
            "unpacked_too_large", f"the gzipped file unpacks to more than {most_bytes // 1_000_000} MB"
        )
    if not member.eof:
        raise FormatError("bad_gzip", "the gzipped file is cut short")
    if member.unused_data.strip(b"\0"):
        raise FormatError("bad_gzip", "there is something after the gzipped file's end")
    return whole
