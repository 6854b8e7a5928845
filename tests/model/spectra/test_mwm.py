import io
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from model.errors import ChemtwinError, FormatError
from model.spectra.apogee import read_fits
from model.spectra.grid import apogee_wavelength
from model.spectra.spectrum import BAD_BITS
from tests.conftest import APSTAR
from tests.model.spectra.mwm_files import APOGEE_ID, content, from_apstar, mwm, row, spectra


def test_an_mwmstar_gives_its_apogee_spectrum():
    flux, ivar, flags, _ = row()
    star = read_fits(mwm([row()]))
    assert (star.kind, star.star_id, star.normalized, star.rows) == ("mwmStar", APOGEE_ID, False, 1)
    assert (star.ra, star.dec) == (0.208093, 16.365355)
    assert star.wavelength is None
    assert star.labels == star.errors == {}, "doppler_teff is a template's"
    np.testing.assert_array_equal(star.flux, flux.astype("f4"))
    np.testing.assert_array_equal(star.ivar, ivar.astype("f4"))
    np.testing.assert_array_equal(star.bad, flags.astype(int) & BAD_BITS != 0)
    assert read_fits(mwm([row()]), 1 << 13).bad.sum() == 5
    assert star.warnings == ()


def test_it_is_the_apstar_in_another_layout():
    old, new = read_fits(APSTAR.read_bytes()), read_fits(from_apstar(APSTAR))
    np.testing.assert_allclose(new.flux, old.flux, rtol=1e-6)
    np.testing.assert_allclose(new.ivar, old.ivar, rtol=1e-6)
    np.testing.assert_array_equal(new.bad, old.bad)
    assert new.star_id == old.star_id


def test_a_pipelines_columns_give_labels_and_errors():
    pipeline = {
        "teff": [4700.0],
        "logg": [2.5],
        "fe_h": [0.1],
        "e_teff": [40.0],
        "e_logg": [np.nan],
        "flag_bad": [True],
    }
    star = read_fits(mwm([row()], columns=pipeline))
    assert star.labels == pytest.approx({"teff": 4700, "logg": 2.5, "fe_h": 0.1})
    assert star.errors == {"teff": 40}
    distrusted = "flag_bad is set: the pipeline does not trust these parameters"
    assert star.notes_of(("logg",)) == star.notes_of(star.labels) == (distrusted,)
    assert star.notes_of(()) == star.warnings == (), "of labels that are not used"
    unknown = read_fits(mwm([row()], columns={"teff": [np.nan], "logg": [-9999.0], "fe_h": [0.1]}))
    assert unknown.labels == pytest.approx({"fe_h": 0.1})


def test_of_two_telescopes_the_better_is_taken():
    star = read_fits(mwm([row(1, snr=50)], [row(2, snr=90)]))
    assert (star.rows, np.nanmean(star.flux)) == (2, pytest.approx(np.nanmean(row(2, snr=90)[0])))
    assert star.warnings == ("one spectrum of 2, from LCO: the other telescope's is not used",)
    other = read_fits(mwm([row(1, snr=50)], [row(2, snr=90)]), row=1)
    assert np.nanmean(other.flux) == pytest.approx(np.nanmean(row(1, snr=50)[0]))


def test_a_visit_at_rest_is_taken_of_an_mwmvisit():
    visits = [row(1, snr=20), row(2, snr=60), row(3, snr=90)]
    star = read_fits(mwm(visits, visits=True, columns={"in_stack": [True, True, False]}))
    assert (star.kind, star.rows) == ("mwmVisit", 2)
    assert np.nanmean(star.flux) == pytest.approx(np.nanmean(visits[1][0]))
    assert "one visit of 2" in star.warnings[0]


@pytest.mark.parametrize(
    ("flags", "named"), [(8.0, ["VERY_BRIGHT_NEIGHBOR"]), (2.0 + 2**22, ["RV_FAIL"]), (np.nan, [])]
)
def test_what_the_flags_say_of_the_spectrum(flags, named):
    star = read_fits(mwm([row()], columns={"spectrum_flags": [flags]}))
    assert [
        name for name in ("VERY_BRIGHT_NEIGHBOR", "RV_FAIL", "COMMISSIONING") if name in str(star.warnings)
    ] == named
    assert len(star.warnings) == len(named)
    assert star.notes_of(()) == star.warnings


def test_an_unknown_flag_leaves_the_pixel_to_its_ivar():
    flux, ivar, flags, snr = row()
    flags[3000:3010] = np.nan
    star = read_fits(mwm([(flux, ivar, flags, snr)]))
    assert not star.bad[3000:3010].any()
    assert star.ivar[3000:3010].all()


@pytest.mark.parametrize("scale", [True, False])
def test_wavelengths_come_from_the_header_or_the_column(scale):
    part = tuple(values[:4000] for values in row()[:3])
    star = read_fits(content(spectra("APOGEE", "APO", [(*part, 80.0)], scale=scale)))
    assert star.wavelength is not None
    np.testing.assert_allclose(star.wavelength, apogee_wavelength()[:4000], rtol=1e-12 if scale else 1e-7)


def test_the_id_is_the_best_that_is_known():
    assert read_fits(mwm([row()], APOGEEID="")).star_id == APOGEE_ID, "the spectrum's own"
    with fits.open(io.BytesIO(mwm([row()], APOGEEID=""))) as hdus:
        hdus[3].columns.del_col("obj")
        out = io.BytesIO()
        hdus.writeto(out)
    assert read_fits(out.getvalue()).star_id == "54323421"


def without_flux() -> bytes:
    """What astra's pipelines write: labels and the best-fitting model."""
    table = spectra("APOGEE", "APO", [row()], teff=[4700.0], logg=[2.5], fe_h=[0.1])
    names = {"flux": "model_flux", "ivar": "continuum"}
    made = [fits.Column(names.get(c.name, c.name), c.format, dim=c.dim, array=c.array) for c in table.columns]
    return content(fits.BinTableHDU.from_columns(made, name="APOGEE/APO"))


def of_columns(*columns) -> bytes:
    return content(fits.BinTableHDU.from_columns(columns, name="APOGEE/APO"))


CASES = {
    "BOSS alone": (mwm, "no_apogee_spectrum"),
    "astraStar": (without_flux, "no_observed_spectrum"),
    "flags that are none": (lambda: mwm([(*row()[:2], np.full(8575, 0.5), 80.0)]), "bad_bitmask"),
    "no visit at rest": (lambda: mwm([row()], visits=True, columns={"in_stack": [False]}), "no_apogee_spectrum"),
    "cut short": (lambda: mwm([row()])[:120_000], None),
    "no scale": (lambda: content(spectra("APOGEE", "APO", [row()], scale=False, wavelength=False)), "unknown_fits"),
    "not astra's": (lambda: mwm([row()], V_ASTRA=None), "unknown_fits"),
    "scalar flux": (lambda: of_columns(fits.Column("flux", "E", array=[1.0])), "unknown_fits"),
    "flux of any length": (
        lambda: of_columns(*(fits.Column(n, "PE()", array=np.array([np.ones(5)], dtype=object)) for n in ("flux", "ivar", "pixel_flags"))),
        "unknown_fits",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "code"), CASES.values(), ids=CASES.keys())
def test_other_files_are_refused(file, code):
    with pytest.raises(ChemtwinError) as caught:
        read_fits(file())
    assert code in (None, caught.value.code)
    assert len(caught.value.message) < 300


def test_a_row_beyond_the_last_is_refused():
    with pytest.raises(FormatError, match="none of number 1"):
        read_fits(mwm([row()]), row=1)


def test_a_header_that_claims_terabytes_allocates_nothing():
    file = mwm([row()])
    offset = file.index(b"NAXIS2  =                    1")
    claimed = file[:offset] + b"NAXIS2  =         100000000000" + file[offset + 30 :]
    with pytest.raises(FormatError):
        read_fits(claimed)


@pytest.mark.parametrize("visits", [False, True])
def test_specutils_opens_the_same_file(visits):
    """Evidence that the layout is the survey's: specutils' own loader, which was written for real files, reads it."""
    from specutils import SpectrumList

    file = mwm([row()], visits=visits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        with fits.open(io.BytesIO(file)) as hdus:
            (spectrum,) = SpectrumList.read(hdus, format="SDSS-V mwm")
    star = read_fits(file)
    assert spectrum.meta["datatype"] == star.kind
    np.testing.assert_array_equal(spectrum.flux.value, star.flux)
    np.testing.assert_allclose(spectrum.spectral_axis.to_value("AA"), apogee_wavelength(), rtol=1e-7)
    good = ~spectrum.mask & np.isfinite(star.flux)
    np.testing.assert_array_equal(spectrum.uncertainty.array[good], star.ivar[good])
