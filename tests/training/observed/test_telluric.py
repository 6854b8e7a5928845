"""Absorption by the Earth's atmosphere, from an observed file."""

from __future__ import annotations

import h5py
import numpy as np
from astropy.io import fits

from model.spectra.grid import Grid
from tests.conftest import APSTAR
from training.observed.telluric import TELLURIC, UNIT, transmission_of


def test_the_shipped_file_is_what_the_command_makes():
    with h5py.File(TELLURIC) as file:
        assert file.attrs["source"] == APSTAR.name
        assert np.array_equal(file["transmission"][:], np.round(transmission_of(APSTAR) * UNIT))


def test_visits_agree_in_the_frame_of_the_earth(tmp_path):
    """Two visits, 12 km/s apart: from each alone comes the same atmosphere. In the star's frame they differ."""
    found, seen = [], []
    for number in (1, 3):
        with fits.open(APSTAR) as file:
            visit, velocity = file[6].data[1 + number].copy(), file[0].header[f"VRAD{number}"]
            file[6].data[:] = visit
            for each in (1, 2, 3):
                file[0].header[f"VRAD{each}"] = velocity
            file.writeto(tmp_path / f"{number}.fits")
        found.append(transmission_of(tmp_path / f"{number}.fits"))
        seen.append(visit[Grid.apogee().apogee_pixels])
    assert np.corrcoef(*found)[0, 1] > 0.98
    assert np.corrcoef(*seen)[0, 1] < 0.8
    assert 0.7 < min(each.min() for each in found) < 0.85, "strong lines absorb a fifth"
