import dataclasses

import numpy as np
import pytest

from model.bundle import load_model, save_model
from model.errors import InputError
from model.spectra.parameters import Parameters
from tests.training.small_surveys import contents, write
from training.evaluation.evaluate import twin_recovery
from training.evaluation.posteriors import posteriors, twin_chi2
from training.fitting import polydis
from training.fitting.discriminants import discriminants
from training.fitting.groups import group_latents, group_means
from training.fitting.train_gaussdis import train
from training.surveys.survey import Survey

RANGES = np.array([[4000.0, 5000.0], [1.5, 3.0], [-1.0, 0.5]])


@pytest.fixture(scope="module")
def trained(thin_xfe_survey):
    return train(thin_xfe_survey, None, "small")


def test_twins_of_another_survey_are_found_and_their_distance_is_as_expected(
    trained, thin_survey, thin_xfe_survey
):
    found = twin_recovery(trained, thin_survey, 100).recovered
    baseline = polydis.fit(thin_xfe_survey, components=trained.card.latent_dim)
    assert found > twin_recovery(baseline, thin_survey, 100).recovered + 0.15
    means, covariances = posteriors(trained, thin_survey, 100)
    assert twin_chi2(trained, means, covariances, thin_survey.twin)[0] == pytest.approx(1, abs=0.35)


def test_a_validation_survey_measures_what_the_response_misses(trained, thin_survey, thin_xfe_survey):
    model = train(thin_xfe_survey, thin_survey, "validated")
    assert model.card.training["validation_seed"] == thin_survey.seed
    assert not np.allclose(model.scatter, trained.scatter)
    means, covariances = posteriors(model, thin_survey, 100)
    assert twin_chi2(model, means, covariances, thin_survey.twin)[0] == pytest.approx(1, abs=0.15)
    with pytest.raises(InputError, match="the training survey"):
        train(thin_xfe_survey, thin_xfe_survey, "same")


def test_the_file_records_groups_and_limits_of_log_g(trained, tmp_path):
    save_model(trained, tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors")
    assert model.card.training["groups"] == 600
    assert model.card.logg_limits == trained.card.logg_limits
    assert "groups of stars of one chemistry" in model.card.metric


def test_a_star_beyond_the_limits_of_log_g_at_its_teff_is_outside(trained):
    limits = ((4000.0, 1.5, 2.0), (5000.0, 2.5, 3.0))
    model = type(trained)(
        dataclasses.replace(trained.card, logg_limits=limits),
        trained.grid,
        trained.normaliser,
        **trained.arrays(),
    )
    middle = dict(zip(("teff", "logg", "fe_h"), model.ranges.mean(axis=1), strict=True)) | {"teff": 4500.0}
    assert model.outside(Parameters(**middle | {"logg": 2.3})) == []
    assert model.outside(Parameters(**middle | {"logg": 1.9})) == [
        "logg = 1.9 is outside the model's training range 2 to 2.5 dex (cgs) at teff = 4500 K"
    ]
    columns = {
        "teff": np.array([4500.0, 4500.0]),
        "logg": np.array([2.3, 1.9]),
        "fe_h": np.full(2, middle["fe_h"]),
    }
    assert model.in_range(columns).tolist() == [True, False]
    far = np.array([[4500.0, logg, 0.0] for logg in (1.6, 1.8)])
    assert np.array_equal(*model.decode(np.zeros((2, model.card.latent_dim)), far))


def test_surveys_without_groups_or_with_few_stars_are_refused_by_name(tmp_path):
    stars = contents()
    alone = {name: values for name, values in stars.items() if name not in ("group", "twin_of")}
    write(tmp_path / "alone.h5", alone)
    write(tmp_path / "noisy.h5", stars | {"snr": np.full(len(stars["star_id"]), 100.0)})
    with pytest.raises(InputError, match="no errors of its pixels"):
        train(Survey.open(tmp_path / "noisy.h5"), None, "m")
    with pytest.raises(InputError, match="no groups of stars"):
        train(Survey.open(tmp_path / "alone.h5"), None, "m")


def test_a_group_has_the_posterior_of_all_its_spectra_together():
    generator = np.random.default_rng(3)
    slopes = generator.standard_normal((3, 2, 5))
    observed = generator.standard_normal((3, 5))
    information = slopes @ slopes.transpose(0, 2, 1)
    single = [
        np.linalg.solve(one + np.eye(2), slope @ values)
        for one, slope, values in zip(information, slopes, observed, strict=True)
    ]
    together = np.linalg.solve(
        information[:2].sum(axis=0) + np.eye(2),
        sum(s @ v for s, v in zip(slopes[:2], observed[:2], strict=True)),
    )
    found = group_latents(np.stack(single), information, np.array([0, 0, 1]))
    assert found[0] == pytest.approx(together)
    assert found[1] == pytest.approx(single[2])
    assert group_means(observed, np.array([0, 0, 1]))[0] == pytest.approx(observed[:2].mean(axis=0))


def test_discriminants_are_what_groups_share():
    """Two latents seen through coefficients that turn with Teff and bend."""
    generator = np.random.default_rng(4)
    group = np.repeat(np.arange(4000), 2)
    latents = generator.standard_normal((4000, 2))[group]
    parameters = generator.uniform(*RANGES.T, size=(8000, 3))
    turn = (parameters[:, 0] - 4500) / 1000
    first, second = latents.T
    coefficients = np.column_stack(
        [
            np.cos(turn) * first + np.sin(turn) * second + 0.2 * first**2,
            np.cos(turn) * second - np.sin(turn) * first,
            second + 0.3 * first * second,
            generator.standard_normal(8000),
        ]
    )
    found = discriminants(coefficients, parameters, RANGES, group)
    assert found.shape[1] in (2, 3)
    design = np.column_stack([np.ones(8000), found])
    residual = latents - design @ np.linalg.lstsq(design, latents, rcond=None)[0]
    assert (residual.var(axis=0) < 0.3).all()
    assert (np.square(found[::2] - found[1::2]).mean(axis=0) < 1).all()
