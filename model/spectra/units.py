"""How the units of labels are written."""

from __future__ import annotations

import re

UNITS = {"teff": "K", "logg": "dex(cm/s2)", "fe_h": "dex", "ra": "deg", "dec": "deg"}
"""The units in which labels and positions are stored."""

_CGS = ("cm/s2", "cm/s**2", "cm/s^2", "cms-2", "cm.s-2", "cm.s**-2", "cms**-2")
SPELLINGS = {
    "teff": {"k", "kelvin"},
    "logg": {"dex", "dex(cgs)", "log(cgs)", "log10(cgs)", "[cm/s2]", "[cgs]"}
    | {f"{name}({unit})" for name in ("dex", "log", "log10") for unit in _CGS},
    "fe_h": {"dex", "dex(solar)", "[-]", "[sun]", "log(sun)"},
}
"""Other spellings of these, in lower case and without spaces."""


def is_stored_unit(label: str, unit: str, stored: str | None = None) -> bool:
    """Whether a unit as a file writes it, "" for none, is the one in which a label is stored.

    `stored` is that unit for a label that `UNITS` does not have.
    """
    text = re.sub(r"\s", "", unit).lower()
    target = UNITS.get(label, "") if stored is None else stored
    return not text or text == target.lower() or text in SPELLINGS.get(label, ())
