"""Compile functions of arrays to machine code that runs without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

ANY_ORDER = {"reassoc", "contract", "nsz", "arcp"}
"""What the compiler may do with sums: reorder them, but not forget that NaN and infinity exist."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function; the code is cached on disk where a folder is writable (NUMBA_CACHE_DIR names one)."""
    try:
        return njit(nogil=True, fastmath=ANY_ORDER, cache=True)(function)
    except RuntimeError:  # no folder can be written to: each process compiles for itself
        return njit(nogil=True, fastmath=ANY_ORDER)(function)
