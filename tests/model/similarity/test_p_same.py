import numpy as np
import pytest
from scipy.stats import kstest

from model.similarity.p_same import P_SAME_LIMIT, Verdict, p_same, verdict


@pytest.mark.parametrize("spread", [np.ones(50), np.geomspace(1, 1e-4, 50), np.r_[1.0, np.full(49, 1e-6)]])
def test_p_same_is_uniform_for_twins(spread):
    generator = np.random.default_rng(1)
    mixing = np.linalg.qr(generator.normal(size=(50, 50)))[0]
    covariance = mixing @ np.diag(spread) @ mixing.T
    differences = generator.multivariate_normal(np.zeros(50), covariance, 4000)
    p = p_same(np.linalg.norm(differences, axis=1), np.tile(covariance, (4000, 1, 1)))
    assert kstest(p, "uniform").statistic < 0.035


def test_far_apart_is_improbable():
    assert p_same(np.array([0.0, 100.0]), np.tile(np.eye(3), (2, 1, 1))) == pytest.approx([1, 0], abs=1e-9)


@pytest.mark.parametrize(
    ("p", "in_domain", "expected"),
    [
        (1.0, True, Verdict.SAME),
        (P_SAME_LIMIT, True, Verdict.SAME),
        (np.nextafter(P_SAME_LIMIT, 0), True, Verdict.DIFFERENT),
        (0.0, True, Verdict.DIFFERENT),
        (None, True, Verdict.UNKNOWN),
        (1.0, False, Verdict.UNKNOWN),
        (0.0, False, Verdict.UNKNOWN),
    ],
)
def test_the_verdict_follows_p_same_inside_the_domain_only(p, in_domain, expected):
    assert verdict(p, in_domain) is expected
