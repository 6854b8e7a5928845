import numpy as np
import pytest

from training.evaluate import doppelgangers, embed_survey, recast_errors, roc_area, twin_recovery


def test_doppelgangers_are_counted_exactly():
    """Against every distance in plain arithmetic."""
    generator = np.random.default_rng(1)
    latents = generator.normal(3, 1, (400, 6))
    latents[1::2] = latents[::2] + generator.normal(0, 0.4, (200, 6))
    twin = np.arange(400) ^ 1
    distance = np.linalg.norm(latents[:, None] - latents[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    expected = (distance < distance[np.arange(400), twin][:, None]).sum(axis=1)
    assert np.array_equal(doppelgangers(latents, twin, block=64), expected)
    assert np.array_equal(doppelgangers(latents, twin), expected)


def test_perfect_and_useless_latents():
    generator = np.random.default_rng(2)
    chemistry = np.repeat(generator.normal(size=(500, 4)), 2, axis=0)
    twin = np.arange(1000) ^ 1
    assert np.all(doppelgangers(chemistry + 1e-6 * generator.normal(size=chemistry.shape), twin) == 0)
    assert roc_area(chemistry, twin) == pytest.approx(1, abs=1e-3)
    noise = generator.normal(size=(1000, 4))
    assert np.mean(doppelgangers(noise, twin) == 0) < 0.02
    assert roc_area(noise, twin) == pytest.approx(0.5, abs=0.05)


def test_the_shipped_model_finds_twins_and_noise_hides_them(model, survey):
    quiet, noisy = twin_recovery(model, survey), twin_recovery(model, survey, 30)
    assert quiet.recovered > 0.5
    assert quiet.auc > 0.8
    assert noisy.recovered < 0.7 * quiet.recovered
    assert quiet.within_ten >= quiet.recovered


def test_noise_is_drawn_before_the_normaliser(model, survey, spectra):
    quiet, noisy = embed_survey(model, survey), embed_survey(model, survey, 100)
    spread = (noisy - quiet).std()
    assert spread == pytest.approx(0.01, rel=0.1)


def test_recasting_beats_leaving_the_twin_as_it_is(model, survey, spectra):
    rows = {(r.pairs, r.way): r for r in recast_errors(model, survey)}
    assert set(rows) == {(p, w) for p in ("all", "500 K apart") for w in ("decoder", "whole residual")}
    flux = model.normaliser.batch(spectra)
    untouched = np.abs(flux - flux[survey.twin]).mean()
    assert rows["all", "decoder"].residual < 0.3 * untouched
    assert rows["all", "whole residual"].residual < 0.3 * untouched
    assert rows["500 K apart", "decoder"].squared > rows["all", "decoder"].squared
