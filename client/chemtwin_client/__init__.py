"""Chemtwin from Python: twins as astropy tables, recasts as specutils spectra.

    from chemtwin_client import Chemtwin

    chem = Chemtwin("http://localhost:8000")
    star = chem.embed("apStar.fits", teff=4705, logg=2.58, fe_h=0.05)
    chem.twins(star.star_id, k=10)

docs/reference/client.md describes all of it.
"""

from chemtwin_client.client import Chemtwin
from chemtwin_client.errors import (
    Busy,
    ChemtwinError,
    ChemtwinWarning,
    InvalidRequest,
    NotFound,
    Unauthorized,
    Unreachable,
)
from chemtwin_client.responses import Embedded, Star, as_table

__all__ = [
    "Busy",
    "Chemtwin",
    "ChemtwinError",
    "ChemtwinWarning",
    "Embedded",
    "InvalidRequest",
    "NotFound",
    "Star",
    "Unauthorized",
    "Unreachable",
    "as_table",
]
