import numpy as np
import pytest
from matplotlib.image import imread

from training.evaluation import figures

RESULTS = [{"label": label, "card": {"parameters": ["teff", "logg"]}} for label in ("first", "second", "bare")]


@pytest.fixture
def arrays():
    """What two models measured, and one that measured nothing."""
    generator = np.random.default_rng(1)
    data = {
        "p_same inf": generator.uniform(size=500),
        "p_same 50": generator.uniform(size=500) ** 0.3,
        "drift levels": np.array([100, 50, 20]),
        "drift": generator.normal(size=(3, 8)) * [[0.1], [0.3], [1]],
        "drift sd": np.full((3, 8), 0.5),
        "drift spread": np.full(8, 2.0),
    }
    return {"first": data, "second": {"p_same 30": generator.uniform(size=50)}, "bare": {}}


@pytest.mark.parametrize("draw", [figures.reliability, figures.drift])
def test_models_that_lack_a_measurement_are_left_out(draw, arrays, tmp_path):
    name, alt = draw(tmp_path, RESULTS, arrays)
    assert imread(tmp_path / name).std() > 0.03
    assert alt
    assert draw(tmp_path, RESULTS[2:], arrays) is None
