import pytest

from app.values.positions import position


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((201.5, -33.0), (201.5, -33.0)),
        ((-170.0, 10.0), (190.0, 10.0)),
        ((360.0, 90.0), (360.0, 90.0)),
        ((-9999.0, -9999.0), (None, None)),
        ((10.0, 91.0), (None, None)),
        ((10.0, None), (None, None)),
        ((float("nan"), 0.0), (None, None)),
    ],
)
def test_positions_that_are_none_are_not_stored(given, expected):
    assert position(*given) == expected
