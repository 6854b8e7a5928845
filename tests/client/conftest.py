import pytest
from chemtwin_client import Chemtwin


@pytest.fixture
def chem(service):
    """A client of the service with the catalogue; tests delete what they store."""
    with Chemtwin(service.url) as chem:
        yield chem
