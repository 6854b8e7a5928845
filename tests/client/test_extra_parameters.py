"""A model with a fourth parameter: the client sends it, shows it with its unit, and recasts to it."""

import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.utils.masked import Masked
from chemtwin_client import Chemtwin, InvalidRequest
from click.testing import CliRunner

from app.cli.main import cli
from tests.conftest import APSTAR, GIANT, Server

pytestmark = pytest.mark.slow  # every test waits for the models that `folder` trains

FOUR = ("--set", 'parameters=["teff", "logg", "fe_h", "vbroad"]', "--set", "components=30")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("further")
    for arguments in (
        ("survey", "synthesize", f"{folder}/train.h5", "--pairs", "300", "--seed", "11", "--own-fe-h", "--broadening", "0", "12"),
        ("survey", "synthesize", f"{folder}/stars.h5", "--pairs", "10", "--seed", "13", "--snr", "100", "--broadening", "0", "12"),
        ("model", "train", f"{folder}/train.h5", "--method", "polydis", "--out", f"{folder}/four.safetensors", *FOUR),
    ):  # fmt: skip
        assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def chem(folder):
    server = Server(folder / "data", {"CHEMTWIN_MODEL": str(folder / "four.safetensors")}, [])
    server.wait()
    with Chemtwin(server.url) as chem:
        yield chem
    server.stop()


@pytest.mark.filterwarnings("ignore::chemtwin_client.ChemtwinWarning")  # so small a model knows little
def test_a_fourth_parameter(chem, folder):
    with h5py.File(folder / "stars.h5") as file:
        labels = {name: file[name][:] for name in ("star_id", "teff", "logg", "fe_h", "vbroad")}
        flux = file["flux"][:]
    ivar = np.full(flux.shape, 1e4)
    assert set(chem.embed_many(flux, labels, ivar=ivar, progress=False)["outcome"]) == {"stored"}
    vbroad = labels.pop("vbroad")
    done = chem.embed_many(flux, labels, ivar=ivar, progress=False)
    assert set(done["code"]) == {"missing_parameters"}
    labels["vbroad"] = Masked(vbroad * 1000 * u.m / u.s, mask=[True] + [False] * (len(vbroad) - 1))
    labels["vbroad_err"] = np.where(vbroad > 0, -9999, 0) * u.km / u.s
    done = chem.embed_many(flux, labels, ivar=ivar, progress=False)
    assert list(done["code"]) == ["unknown_label"] + [""] * (len(vbroad) - 1)
    assert chem.star(done["star_id"][1]).parameters == {"vbroad": pytest.approx(vbroad[1])}
    with pytest.raises(u.UnitsError, match="vbroad"):
        chem.embed_many(flux, labels | {"vbroad": vbroad * u.K}, progress=False)
    star_id = done["star_id"][0]
    star = chem.star(star_id)
    found = chem.twins(star_id, k=3, fe_h_within="any")
    assert found["vbroad"].unit == "km / s"
    assert found["vbroad"][0] == chem.star(found["star_id"][0]).parameters["vbroad"]
    assert chem.stars()["vbroad"].unit == "km / s"
    many = chem.twins_many([star_id], k=2, fe_h_within="any", progress=False)
    assert "vbroad" in many.colnames
    assert chem.twins_many([], progress=False).colnames == many.colnames
    assert chem.twins(star_id, max_distance=0.0).colnames == many.colnames[1:]
    recast = chem.recast(star_id, {"parameters": {"vbroad": 0.5}})
    assert recast.meta["from"] == star.labels
    assert recast.meta["to"]["parameters"] == {"vbroad": 0.5}
    with pytest.raises(InvalidRequest, match="vbroad"):
        chem.embed(APSTAR, **GIANT)
    of_file = chem.embed(
        APSTAR, **GIANT, parameters={"vbroad": 3000 * u.m / u.s}, parameters_err={"vbroad": 0.5}
    )
    assert chem.star(of_file.star_id).parameters == {"vbroad": 3.0}
