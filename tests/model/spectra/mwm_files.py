"""Files in the layout of SDSS-V's mwmStar and mwmVisit, made by astropy: no real one is at hand."""

import io

import numpy as np
from astropy.io import fits

from model.spectra.grid import apogee_wavelength

APOGEE_ID = "2M00004994+1621552"
BOSS = (3.5523, 1e-4, 4648)


def primary(**changes) -> fits.PrimaryHDU:
    hdu = fits.PrimaryHDU()
    header = {"V_ASTRA": "0.6.0", "SDSS_ID": 54323421, "APOGEEID": APOGEE_ID, "GAIA3_ID": 2772104109112208256}
    header |= {"RA": 0.208093, "DEC": 16.365355, "V_RAD": "NaN"}
    for name, value in (header | changes).items():
        if value is not None:
            hdu.header[name] = value
    hdu.add_checksum()
    return hdu


def spectra(
    instrument, observatory, rows=(), *, visits=False, wavelength=True, scale=True, **columns
) -> fits.BinTableHDU:
    """A table of spectra; each row is (flux, ivar, pixel_flags, snr), `columns` hold one value per row."""
    start, step, pixels = BOSS if instrument == "BOSS" else (4.179, 6e-6, 8575)
    if rows:
        pixels = len(rows[0][0])
    vector = {"format": f"{pixels}E", "dim": f"({pixels})"}
    count = len(rows)
    made = [
        fits.Column("sdss_id", "K", array=np.full(count, 54323421)),
        fits.Column("obj", "18A", array=np.full(count, APOGEE_ID)),
        fits.Column("telescope", "6A", array=np.full(count, f"{observatory.lower()}25m")),
        fits.Column("snr", "E", array=[row[3] for row in rows]),
        fits.Column("doppler_teff", "E", array=np.full(count, 4711.0)),
    ]
    times = ("mjd",) if visits else ("min_mjd", "max_mjd")
    made += [fits.Column(name, "J", array=59804 + np.arange(count)) for name in times]
    if wavelength and not visits:
        every = np.tile(10 ** (start + step * np.arange(pixels)), (count, 1))
        made.append(fits.Column("wavelength", array=every, **vector))
    for number, name in enumerate(("flux", "ivar", "pixel_flags")):
        made.append(
            fits.Column(name, array=np.array([row[number] for row in rows]).reshape(count, pixels), **vector)
        )
    for name, values in columns.items():
        made.append(fits.Column(name, "L" if np.asarray(values).dtype == bool else "E", array=values))
    hdu = fits.BinTableHDU.from_columns(made, name=f"{instrument}/{observatory}")
    hdu.header.update(INSTRMNT=instrument, OBSRVTRY=observatory, NPIXELS=pixels)
    if scale:
        hdu.header.update(CRVAL=start, CDELT=step, CRPIX=1, CTYPE="LOG-LINEAR", CUNIT="Angstrom (Vacuum)")
    hdu.add_checksum()
    return hdu


def row(seed=0, snr=80.0, level=300.0):
    """A star in counts, with a few bad pixels and APOGEE's gaps between the detectors."""
    generator = np.random.default_rng(seed)
    flux = level * (1 + generator.normal(scale=1 / snr, size=8575))
    ivar = np.full(8575, (snr / level) ** 2)
    flags = np.zeros(8575)
    flags[1000:1010], flags[2000:2005] = 1 | 1 << 12, 1 << 13
    flux[:246], ivar[:246] = np.nan, 0
    return flux, ivar, flags, snr


def content(*tables, **changes) -> bytes:
    out = io.BytesIO()
    fits.HDUList([primary(**changes), *tables]).writeto(out)
    return out.getvalue()


def mwm(apo=(), lco=(), *, visits=False, columns=None, **changes) -> bytes:
    """A whole file: BOSS at both observatories, empty, and APOGEE at both."""
    return content(
        spectra("BOSS", "APO", visits=visits),
        spectra("BOSS", "LCO", visits=visits),
        spectra("APOGEE", "APO", apo, visits=visits, **(columns or {} if apo else {})),
        spectra("APOGEE", "LCO", lco, visits=visits, **(columns or {} if lco else {})),
        **changes,
    )


def from_apstar(path, **columns) -> bytes:
    """The combined spectrum of a real apStar file in this layout."""
    with fits.open(path) as hdus:
        flux, error, flags = (hdus[number].data[0].astype(float) for number in (1, 2, 3))
    good = (error > 0) & np.isfinite(error)
    ivar = np.divide(1, error**2, out=np.zeros_like(error), where=good)
    assert len(flux) == len(apogee_wavelength())
    return mwm([(flux, ivar, flags, 100.0)], columns={name: [value] for name, value in columns.items()})
