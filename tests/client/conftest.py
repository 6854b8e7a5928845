import h5py
import numpy as np
import pytest
from astropy.table import Table
from chemtwin_client import Chemtwin

from tests.conftest import Server


@pytest.fixture
def chem(service):
    """A client of the service with the catalogue; tests delete what they store."""
    with Chemtwin(service.url) as chem:
        yield chem


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """A service without stars."""
    server = Server(tmp_path_factory.mktemp("empty") / "data", {}, [])
    server.wait()
    yield server
    server.stop()


@pytest.fixture
def fresh(empty):
    """A client of the empty service, which is emptied again."""
    with Chemtwin(empty.url) as chem:
        yield chem
        for star in list(chem.iter_stars()):
            chem.delete(star.star_id)


@pytest.fixture
def three(catalogue):
    """Labels of three stars A, B and C, as a Table without units, and their fluxes (3, P)."""
    with h5py.File(catalogue) as file:
        labels = Table({name: file[name][:3].astype(float) for name in ("teff", "logg", "fe_h")})
        flux = file["flux"][:3].astype(np.float64)
    labels.add_column(["A", "B", "C"], 0, "star_id")
    return labels, flux
