import numpy as np
import pytest

from model.methods.polydis import PolyDis
from training.evaluation.evaluate import (
    doppelgangers,
    embed_survey,
    recast_errors,
    twin_recovery,
    twin_search,
)
from training.fitting.polydis import fit
from training.random_streams import Stream
from training.surveys.survey import Survey, add_noise


def test_doppelgangers_are_counted_exactly():
    """Against every distance in plain arithmetic."""
    generator = np.random.default_rng(1)
    latents = generator.normal(3, 1, (400, 6))
    latents[1::2] = latents[::2] + generator.normal(0, 0.4, (200, 6))
    twin = np.arange(400) ^ 1
    distance = np.linalg.norm(latents[:, None] - latents[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    expected = (distance < distance[np.arange(400), twin][:, None]).sum(axis=1)
    assert np.array_equal(doppelgangers(latents, twin), expected)


def test_perfect_and_useless_latents():
    generator = np.random.default_rng(2)
    chemistry = np.repeat(generator.normal(size=(500, 4)), 2, axis=0)
    twin = np.arange(1000) ^ 1
    assert np.all(doppelgangers(chemistry + 1e-6 * generator.normal(size=chemistry.shape), twin) == 0)
    assert twin_search(chemistry, twin).auc == pytest.approx(1, abs=1e-3)
    noise = generator.normal(size=(1000, 4))
    assert np.mean(doppelgangers(noise, twin) == 0) < 0.02
    assert twin_search(noise, twin).auc == pytest.approx(0.5, abs=0.05)


def test_the_shipped_model_finds_twins_and_noise_hides_them(model, survey):
    quiet, noisy = twin_recovery(model, survey), twin_recovery(model, survey, 30)
    assert quiet.recovered > 0.4
    assert quiet.auc > 0.8
    assert noisy.recovered < 0.7 * quiet.recovered
    assert quiet.within_ten >= quiet.recovered


def test_noise_is_drawn_before_the_normaliser(model, survey, spectra):
    noisy = [
        add_noise(spectra[rows], 100, Stream.EVALUATION_NOISE, rows.start) for rows, _ in survey.blocks("rows")
    ]
    flux = model.normaliser.batch(np.concatenate(noisy)).astype(float)
    expected = model.encode(flux, survey.parameters, np.full(flux.shape, 1e-4))
    assert embed_survey(model, survey, 100) == pytest.approx(expected, abs=1e-5)


def test_a_survey_with_noise_of_its_own_is_refused(model, catalogue):
    with pytest.raises(ValueError, match="noise of its own"):
        twin_recovery(model, Survey.open(catalogue))


def test_latents_that_say_nothing_find_nothing():
    assert np.all(doppelgangers(np.zeros((100, 4)), np.arange(100) ^ 1) == 98)


def test_recasting_beats_leaving_the_twin_as_it_is(model, survey, spectra):
    rows = {(r.pairs, r.way): r for r in recast_errors(model, survey)}
    assert {("all", "decoder"), ("500 K apart", "decoder")} <= set(rows)
    flux = model.normaliser.batch(spectra)
    untouched = np.abs(flux - flux[survey.twin]).mean()
    assert rows["all", "decoder"].residual < 0.3 * untouched
    assert rows["500 K apart", "decoder"].squared > rows["all", "decoder"].squared


@pytest.fixture(scope="module")
def polydis(thin_survey) -> PolyDis:
    return fit(thin_survey, components=30, normalise=False)


def test_the_papers_way_of_recasting_polydis_moves_the_whole_residual(polydis, thin_survey):
    rows = {(r.pairs, r.way): r for r in recast_errors(polydis, thin_survey)}
    assert set(rows) == {(p, w) for p in ("all", "500 K apart") for w in ("decoder", "whole residual")}
    assert rows["all", "whole residual"].residual == pytest.approx(rows["all", "decoder"].residual, rel=0.05)


@pytest.mark.parametrize("weight", [0.3, 3])
def test_a_leak_of_fe_h_pays_on_the_papers_pairs_and_costs_on_the_others(
    polydis, thin_survey, thin_xfe_survey, weight
):
    """Why [Fe/H]-removed models are selected on pairs that differ in it: with [Fe/H] appended to z more twins of the
    paper's kind are found and fewer of the other."""

    def gain(pairs: Survey) -> float:
        latents = embed_survey(polydis, pairs)
        leak = weight * (pairs.parameters[:, 2:] - pairs.parameters[:, 2].mean())
        leaky = np.hstack([latents, leak])
        return twin_search(leaky, pairs.twin).recovered - twin_search(latents, pairs.twin).recovered

    assert gain(thin_survey) > 0.02
    assert gain(thin_xfe_survey) < -0.02
