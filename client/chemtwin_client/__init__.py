"""Chemtwin from Python: twins as astropy tables, recasts as specutils spectra.

    from chemtwin_client import Chemtwin

    chem = Chemtwin("http://localhost:8000")
    star = chem.embed("apStar.fits", teff=4705, logg=2.58, fe_h=0.05)
    chem.twins(star.star_id, k=10)

docs/client.md tells the rest.
"""

from chemtwin_client.answers import Embedded, Star, as_table
from chemtwin_client.client import Chemtwin
from chemtwin_client.errors import (
    Busy,
    ChemtwinError,
    ChemtwinWarning,
    NotFound,
    Refused,
    Unauthorized,
    Unreachable,
)

__all__ = [
    "Busy",
    "Chemtwin",
    "ChemtwinError",
    "ChemtwinWarning",
    "Embedded",
    "NotFound",
    "Refused",
    "Star",
    "Unauthorized",
    "Unreachable",
    "as_table",
]
