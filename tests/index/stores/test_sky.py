"""Circles on the sky against astropy's coordinates, at the poles and across 0 h too."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from index.stores.sky import Circle

CIRCLES = st.builds(
    Circle,
    ra=st.floats(0, 360),
    dec=st.floats(-90, 90) | st.sampled_from([-90.0, -89.9, 0.0, 89.9, 90.0]),
    radius=st.floats(0, 180) | st.floats(0, 0.01),
)


@given(circle=CIRCLES, angles=st.lists(st.floats(0, 360), min_size=1), share=st.floats(0, 1))
def test_the_box_holds_the_circle_and_separations_are_astropy_s(circle, angles, share):
    centre = SkyCoord(circle.ra, circle.dec, unit="deg")
    there = centre.directional_offset_by(np.array(angles) * u.deg, share * circle.radius * u.deg)
    ra, dec = there.ra.deg, there.dec.deg
    np.testing.assert_allclose(circle.separation(ra, dec), centre.separation(there).deg, atol=2e-6)
    low, high, *ranges = circle.box()
    assert np.all((dec >= low) & (dec <= high))
    first, second = (((ra >= west - 1e-9) & (ra <= east + 1e-9)) for west, east in (ranges[:2], ranges[2:]))
    pole = np.abs(dec) > 90 - 1e-6  # where any right ascension will do
    assert np.all(first | second | pole)


def test_a_small_circle_has_a_small_box():
    low, high, west, east, *_ = Circle(120, 60, 1).box()
    assert 2 < high - low < 2.0001
    assert 4 < east - west < 4.01
