"""Many stars: good ones are stored among bad ones, in few requests, and an interrupted run goes on."""

import warnings

import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table
from chemtwin_client import Chemtwin, ChemtwinWarning, Unauthorized, Unreachable

from tests.conftest import APSTAR, ASPCAP, GIANT

pytestmark = pytest.mark.filterwarnings("default::chemtwin_client.ChemtwinWarning")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from tests.conftest import Server

    server = Server(tmp_path_factory.mktemp("bulk") / "data", {}, [])
    server.wait()
    yield server
    server.stop()


@pytest.fixture
def chem(server):
    with Chemtwin(server.url) as chem:
        yield chem
        for star in list(chem.iter_stars()):
            chem.delete(star.star_id)


@pytest.fixture
def sample(catalogue):
    """150 stars of the catalogue: their labels as a table with units, and their fluxes."""
    with h5py.File(catalogue) as file:
        labels = Table({name: file[name][:150] for name in ("star_id", "teff", "logg", "fe_h")})
        flux = file["flux"][:150]
    labels["teff"] = (labels["teff"] / 1000) * u.kK
    labels["teff_err"] = 30.0
    labels["ra"] = np.linspace(0, 180, 150) * u.deg
    labels["dec"] = np.zeros(150)
    labels["field"] = "M 67"
    return labels, flux


def test_all_stars_are_stored_as_one_by_one(chem, sample, capsys):
    labels, flux = sample
    ivar = np.full(flux.shape, 1e4)
    done = chem.embed_many(flux, labels, ivar=ivar)
    assert list(done["outcome"]) == ["stored"] * 150
    assert list(done["star_id"]) == list(labels["star_id"])
    assert done["latent"].shape == (150, chem.model()["latent_dim"])
    assert "150/150" in capsys.readouterr().err
    row = 77
    alone = chem.embed(
        flux[row], ivar=ivar[row], star_id="alone", teff_err=30, logg=labels["logg"][row],
        teff=labels["teff"][row] * 1000, fe_h=labels["fe_h"][row],
    )  # fmt: skip
    assert np.allclose(alone.latent, done["latent"][row], atol=1e-4)
    assert np.allclose(alone.latent_sd, done["latent_sd"][row], rtol=1e-4)
    star = chem.star(done["star_id"][row])
    assert star.ra == pytest.approx(labels["ra"][row])
    assert star.teff == pytest.approx(1000 * labels["teff"][row])
    again = chem.embed_many(flux, labels, ivar=ivar, progress=False)
    assert set(again["outcome"]) == {"replaced"}
    assert not capsys.readouterr().err


def test_bad_stars_are_reported_and_leave_the_good_ones_alone(chem, sample):
    labels, flux = sample
    labels, flux = labels[:6], flux[:6].copy()
    ids = ["good-1", "bad id", "no-flux", "no-teff", "odd+1:2", "good-2"]
    labels["star_id"] = ids
    labels["teff"][3] = np.nan
    flux[2] = 9.0
    done = chem.embed_many(flux, labels, progress=False)
    assert list(done["outcome"]) == ["stored", "refused", "refused", "refused", "stored", "stored"]
    assert list(done["code"]) == ["", "invalid_request", "not_normalized", "unknown_label", "", ""]
    assert "star_id" in done["message"][1]
    assert np.isnan(done["latent"][1]).all()
    assert np.isfinite(done["latent"][0]).all()
    assert [star.star_id for star in chem.iter_stars()] == ["good-1", "good-2", "odd+1:2"]


def test_one_warning_counts_the_stars_to_look_at(chem, sample):
    labels, flux = sample
    labels, flux = labels[:5], flux[:5].copy()
    labels["teff"][1], labels["teff"][2] = 9.0, np.nan
    flux[3] = 9.0
    with pytest.warns(ChemtwinWarning) as warned:
        done = chem.embed_many(flux, labels, progress=False)
    assert list(done["outcome"]) == ["stored", "stored", "refused", "refused", "stored"]
    (one,) = warned
    assert one.filename == __file__
    assert str(one.message) == (
        "5 stars: 1 with warnings (column warnings), 1 outside the model's domain (column in_domain), "
        "2 refused (columns code and message)"
    )
    with warnings.catch_warnings(action="error"):
        assert list(chem.embed_many(flux[:1], labels[:1], progress=False)["outcome"]) == ["replaced"]


def test_what_cannot_be_an_id_is_not_looked_for(chem, sample):
    labels, flux = sample
    labels, flux = labels[:4], flux[:4]
    labels["star_id"] = ["..", ".", "", "a/b"]
    done = chem.embed_many(flux, labels, skip_stored=True, progress=False)
    assert list(done["code"]) == ["invalid_request", "invalid_request", "bad_star_id", "invalid_request"]
    assert chem.model()["stars"] == 0


def test_masked_labels_are_missing_labels(chem, sample):
    labels, flux = sample
    labels = Table(labels[:2], masked=True)
    labels["logg"].mask[1] = True
    done = chem.embed_many(flux[:2], labels, progress=False)
    assert list(done["outcome"]) == ["stored", "refused"]
    assert "logg" in done["message"][1]


def test_stored_stars_are_skipped_and_an_interrupted_run_goes_on(server, chem, sample, catalogue):
    labels, flux = sample
    chem.embed_many(flux[:70], labels[:70], progress=False)
    with h5py.File(catalogue) as file:
        done = chem.embed_many(_Part(file["flux"], 150), labels, skip_stored=True, progress=False)
    assert list(done["outcome"]) == ["skipped"] * 70 + ["stored"] * 80
    assert np.isfinite(done["latent"]).all()


class _Part:
    """The first rows of a dataset in a file, read as they are asked for."""

    def __init__(self, dataset, rows):
        self.dataset, self.rows = dataset, rows

    def __len__(self):
        return self.rows

    def __getitem__(self, rows):
        assert rows.stop - rows.start <= 64
        return self.dataset[rows]


def test_a_service_that_dies_under_way_says_how_far_it_came(start_server, sample):
    server = start_server()
    labels, flux = sample

    class Dying(_Part):
        def __getitem__(self, rows):
            if rows.start:
                server.stop()
            return self.dataset[rows]

    with Chemtwin(server.url) as chem, pytest.raises(Unreachable) as caught:
        chem.embed_many(Dying(flux, 150), labels, progress=False)
    assert caught.value.__notes__ == ["64 of 150 stars were done; with skip_stored=True the rest follows"]


def test_files_and_spectra_with_a_table_of_labels(chem, sample, model, tmp_path):
    from specutils import Spectrum

    labels, flux = sample
    spectrum = Spectrum(flux=flux[0] * u.one, spectral_axis=model.grid.wavelength * u.AA)
    (tmp_path / "not.fits").write_text("no FITS")
    sources = [APSTAR, str(ASPCAP), spectrum, tmp_path / "gone.fits", tmp_path / "not.fits"]
    table = {
        "star_id": ["2M00004994+1621552", "2M17334253-1654573", "S", "gone", "not"],
        "ra": [1.0, 2.0, 3.0, 4.0, 5.0],
        "dec": [0.0] * 5,
        **{name: [value] * 5 for name, value in GIANT.items()},
    }
    with pytest.warns(ChemtwinWarning, match="the files' own ra"):
        done = chem.embed_many(sources, table, progress=False)
    assert list(done["outcome"]) == ["stored", "stored", "stored", "refused", "refused"]
    assert list(done["code"][3:]) == ["not_sent", "not_fits"]
    assert chem.star("2M00004994+1621552").ra == pytest.approx(0.208, abs=0.01)
    assert chem.star("S").ra == 3.0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda labels, flux: (labels[:5], flux), "sources 150, labels 5"),
        (lambda labels, flux: (labels["teff", "logg"], flux), "need a column star_id"),
    ],
)
def test_lengths_that_disagree(chem, sample, change, says):
    labels, flux = change(*sample)
    with pytest.raises(ValueError, match=says):
        chem.embed_many(flux, labels, progress=False)


def test_a_full_queue_is_waited_for(start_server, sample):
    server = start_server(CHEMTWIN_QUEUE_SIZE="16")
    labels, flux = sample
    with Chemtwin(server.url, retries=0) as hasty:
        done = hasty.embed_many(flux[:40], labels[:40], progress=False)
        assert "busy" in set(done["code"])
        assert "stored" in set(done["outcome"])
    with Chemtwin(server.url) as chem:
        done = chem.embed_many(flux[:40], labels[:40], progress=False)
    assert set(done["outcome"]) == {"stored", "replaced"}


def test_a_key_that_may_not_write_stops_the_whole(start_server, sample):
    server = start_server(CHEMTWIN_API_KEYS="writer", CHEMTWIN_READ_KEYS="reader")
    with Chemtwin(server.url, key="reader") as chem, pytest.raises(Unauthorized):
        chem.embed_many(sample[1], sample[0], progress=False)


def test_twins_of_many(service, capsys):
    import pandas as pd

    with Chemtwin(service.url) as chem:
        ids = list(chem.stars()["star_id"][:250])
        found = chem.twins_many(ids, k=3)
        assert "250/250" in capsys.readouterr().err
        assert len(found) == 750
        for star_id in (ids[0], ids[249]):
            single = chem.twins(star_id, k=3)
            these = found[found["asked_star_id"] == star_id]
            assert list(these["star_id"]) == list(single["star_id"])
            assert np.array_equal(these["distance"], single["distance"])
        assert "refused" not in found.meta
        assert found["teff"].unit == u.K
        with pytest.warns(ChemtwinWarning, match="there is no star none"):
            some = chem.twins_many([ids[0], "none", ids[1]], k=2, rank="likelihood", snr_min=1, progress=False)
        assert list(some["asked_star_id"]) == [ids[0]] * 2 + [ids[1]] * 2
        assert list(some.meta["refused"]) == ["none"]
        assert "log_likelihood_ratio" in some.colnames
        for nothing in ([], pd.DataFrame({"star_id": []})["star_id"]):
            none = chem.twins_many(nothing, progress=False)
            assert (len(none), none.colnames) == (0, found.colnames)
        with pytest.warns(ChemtwinWarning, match="there is no star none"):
            assert chem.twins_many(["none"], progress=False).colnames == found.colnames
        with pytest.raises(TypeError, match="leave teff out"):
            chem.twins_many(ids, teff=3)
