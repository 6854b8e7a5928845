import dataclasses
import json

import numpy as np
import pytest

from training.emulator.derivatives import flux_and_slopes, information
from training.evaluation import limit as limits
from training.evaluation.ideal_observer import IdealObserver, Prior, emulator_labels, varied
from training.evaluation.limit import doppelganger_rate, group_rate, limit, measure, recovery, siblings
from training.evaluation.limit_fits import fit
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize

STARS = 500
"""So many of the survey's are observed."""


@pytest.fixture(scope="module")
def labels(survey, emulator):
    return emulator_labels(survey, emulator)[:STARS]


@pytest.fixture(scope="module")
def twin(survey):
    return survey.twin[:STARS]


@pytest.fixture(scope="module")
def columns(labels, emulator):
    return varied(labels, emulator)


@pytest.fixture(scope="module")
def fisher(emulator, labels, columns):
    return information(emulator, labels, columns)


@pytest.fixture(scope="module")
def observer(labels, columns, fisher):
    return IdealObserver.of(labels[:, columns], fisher)


@pytest.fixture(scope="module")
def groups(tmp_path_factory, emulator):
    path = tmp_path_factory.mktemp("groups") / "groups.h5"
    synthesize(path, emulator, 40, seed=7, members=5)
    return Survey.open(path)


def test_labels_give_back_the_spectra(emulator, labels, spectra):
    np.testing.assert_allclose(emulator(labels[:20]), spectra[:20], atol=1e-6)


def test_chemistry_is_what_varies(emulator, columns):
    assert [emulator.labels[i] for i in columns][:3] == ["fe_h", "N", "O"]
    assert len(columns) == 18


def test_slopes_are_those_of_finite_differences(emulator, labels):
    """Of Teff and carbon too, which the limit does not ask for."""
    wanted = [i for i, name in enumerate(emulator.labels) if name != "logg"]
    steps = np.where(np.array(emulator.labels) == "teff", 2.0, 2e-3)
    inside = labels[:6].copy()
    inside[:, emulator.labels.index("C")] = -0.1
    flux, slopes = flux_and_slopes(emulator, inside, wanted)
    moved = [inside + np.diag(sign * steps)[column] for column in wanted for sign in (1, -1)]
    spectra = emulator(np.concatenate([inside, *moved])).reshape(-1, *flux.shape).astype(float)
    np.testing.assert_allclose(flux.numpy(), spectra[0], atol=1e-6)
    for number, column in enumerate(wanted):
        above, below = spectra[1 + 2 * number : 3 + 2 * number]
        expected = (above - below) / (2 * steps[column])
        assert slopes[:, number].numpy() == pytest.approx(expected, abs=2e-3 * np.abs(expected).max())


def test_information_is_the_product_of_the_slopes(emulator, labels, columns, fisher):
    slopes = flux_and_slopes(emulator, labels[-3:], columns)[1].double().numpy()
    assert fisher[-3:] == pytest.approx(slopes @ slopes.swapaxes(1, 2), rel=1e-4)


def test_the_prior_leaves_out_what_does_not_vary():
    generator = np.random.default_rng(3)
    free = generator.normal(size=(5000, 2)) * [0.1, 0.3] + [1, 2]
    abundances = np.column_stack([free, free.sum(axis=1)])
    prior = Prior.of(abundances)
    latents = prior.latents(abundances)
    assert latents.shape == (5000, 2)
    assert np.cov(latents.T) == pytest.approx(np.eye(2), abs=1e-9)
    assert prior.mean + latents @ prior.axes.T == pytest.approx(abundances)


@pytest.mark.parametrize("snr", [100, 30])
def test_the_ideal_observer_errs_as_much_as_it_says(observer, snr):
    stars = observer.draw(snr)
    error = stars.mean - observer.latents
    chi2 = np.einsum("ni,nij,nj->n", error, stars.precision, error)
    freedom = observer.latents.shape[1]
    assert chi2.mean() == pytest.approx(freedom, abs=5 * np.sqrt(2 * freedom / len(chi2)))


def test_noise_hides_twins(observer, twin):
    found = [recovery(observer, twin, 200, snr) for snr in (np.inf, 20, 5)]
    fractions = [level["recovered"]["fraction"] for level in found]
    assert fractions[0] == 1
    assert 1 > fractions[1] > fractions[2]
    assert all(level["changed"] == 0 for level in found)
    assert all(level["within_ten"]["fraction"] >= level["recovered"]["fraction"] for level in found)


def test_chemistry_without_fe_h_tells_less(observer, labels, columns, fisher, twin):
    fewer = IdealObserver.of(labels[:, columns[1:]], fisher[:, 1:, 1:])
    with_fe_h, without = (recovery(o, twin, 200, 20)["recovered"]["fraction"] for o in (observer, fewer))
    assert with_fe_h > without


def test_fits_to_spectra_find_the_twins_that_the_ideal_observer_finds(emulator, labels, columns, monkeypatch):
    monkeypatch.setattr("training.evaluation.limit_fits.STEPS", 8)
    prior = Prior.of(labels[:, columns])
    observer, fits = fit(emulator, labels[:60], columns, prior, 100)
    error = fits.mean - prior.latents(labels[:60][:, columns])
    chi2 = np.einsum("ni,nij,nj->n", error, fits.precision, error)
    assert chi2.mean() == pytest.approx(18, abs=5 * np.sqrt(2 * 18 / 60))
    first = np.arange(0, 60, 2)
    ours, theirs = (stars.pairs(first, first + 1) for stars in (fits, observer))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9
    assert ours.mean() == pytest.approx(theirs.mean(), abs=1)


def test_siblings_are_all_pairs_of_a_group():
    pairs = siblings(np.array([4, 1, 4, 1, 4, 9]))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 2), (0, 4), (1, 3), (2, 4)]


def test_the_doppelganger_rate_counts_pairs_as_alike_as_the_median_siblings():
    rate = doppelganger_rate(np.array([1.0, 3.0, 10.0]), np.array([0.0, 3.0, 4.0, 5.0]))
    assert rate == {"fraction": 0.75, "error": pytest.approx(0.2165, abs=1e-4)}
    assert doppelganger_rate(np.array([3.0]), np.array([3.0, 0.0]), unlike=8)["fraction"] == 0.1


def test_groups_have_a_rate_and_no_twins(groups, emulator):
    rates = limit(groups, emulator, 10)["removed"]
    assert list(rates) == ["teff, logg, fe_h", "teff, logg"]
    for found in rates.values():
        assert set(found) == {"abundances", "groups"}
        assert found["groups"]["100"]["fraction"] <= found["groups"]["50"]["fraction"] < 0.02
    labels = emulator_labels(groups, emulator)
    columns = varied(labels, emulator)
    blind = IdealObserver.of(labels[:, columns], np.zeros((len(labels), 18, 18)))
    assert group_rate(blind, groups.group, 50)["fraction"] == 1


@pytest.fixture(scope="module")
def few_xfe(tmp_path_factory, emulator):
    path = tmp_path_factory.mktemp("xfe") / "xfe.h5"
    synthesize(path, emulator, 100, seed=404, own_fe_h=True)
    return Survey.open(path)


def test_the_limit_is_measured_once(few_xfe, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "LEVELS", (50.0,))
    monkeypatch.setattr("training.evaluation.limit_fits.FIT_LEVELS", (50.0,))
    monkeypatch.setattr("training.evaluation.limit_fits.FIT_PAIRS", 10)
    monkeypatch.setattr("training.evaluation.limit_fits.STEPS", 5)
    report = measure([few_xfe.path], tmp_path, 20)
    stored = json.loads((tmp_path / "limit.json").read_text())
    found = stored["[X/Fe] pairs/404"]["removed"]
    assert list(found) == ["teff, logg, fe_h"]
    assert len(found["teff, logg, fe_h"]["abundances"]) == 17
    recovered = found["teff, logg, fe_h"]["twins"]["50"]["recovered"]["fraction"]
    assert f"| 50 | {recovered:.3f} ± " in report
    assert (tmp_path / "limit.md").read_text().strip() == report
    assert "[X/Fe] pairs/404, teff, logg, fe_h removed</h2>" in (tmp_path / "limit.html").read_text()
    monkeypatch.delattr(limits, "limit")
    assert measure([few_xfe.path], tmp_path, 20) == report


def test_a_survey_without_twins_has_no_limit(few_xfe, emulator):
    with pytest.raises(ValueError, match="neither twins nor groups"):
        limit(dataclasses.replace(few_xfe, twin=None, group=None), emulator, 10)
