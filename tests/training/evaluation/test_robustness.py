import numpy as np
import pytest
from matplotlib.image import imread

from model.spectra.grid import Grid
from training.evaluation import figures
from training.evaluation.evaluate import embed_survey, twin_rows, twin_search
from training.evaluation.robustness import perturbed_latents, robustness, robustness_table
from training.fitting.polydis import fit
from training.surveys.observational_effects import (
    CASES,
    LABEL_SD,
    blocks,
    broadened,
    perturbed,
    shifted,
    slopes,
)

GRID = Grid.apogee()
STEP = np.log(10) * 6e-6
LINE = 5000
LSF = 1 / (22_500 * np.sqrt(8 * np.log(2)) * STEP)
"""Standard deviation in pixels of a line at APOGEE's resolution."""


@pytest.fixture
def line():
    """Flux (1, P) of one Gaussian absorption line of 0.4 at the instrument's width."""
    return 1 - 0.4 * np.exp(-0.5 * ((np.arange(len(GRID)) - LINE) / LSF) ** 2)[None]


def moments(flux):
    """Area, centre and standard deviation in pixels of the line."""
    near = np.arange(LINE - 40, LINE + 41)
    depth = 1 - flux[near]
    centre = np.average(near, weights=depth)
    return depth.sum(), centre, np.sqrt(np.average((near - centre) ** 2, weights=depth))


def changed(flux, kind, seed=1):
    parameters = np.tile([4500.0, 2.0, 0.0], (len(flux), 1))
    return perturbed(flux, parameters, kind, np.random.default_rng(seed), GRID.wavelength)


@pytest.mark.parametrize("velocity", [-4.14, -0.5, 0.5, 1.0, 30.0])
def test_a_velocity_moves_a_line_and_does_not_smear_it(line, velocity):
    area, centre, sd = moments(shifted(line, np.array([velocity]), GRID.wavelength)[0])
    assert centre - LINE == pytest.approx(velocity / 299_792.458 / STEP, abs=2e-3)
    assert area == pytest.approx(moments(line[0])[0], rel=1e-4)
    assert sd == pytest.approx(LSF, rel=1e-3)


def test_a_shift_and_its_inverse_leave_a_real_looking_spectrum_as_it_was(spectra):
    velocity = np.random.default_rng(2).normal(0, 0.5, 20)
    there = shifted(spectra[:20].astype(float), velocity, GRID.wavelength)
    back = shifted(there, -velocity, GRID.wavelength)
    assert np.abs(there - spectra[:20]).max() > 0.02
    for chip in GRID.detectors:
        inner = slice(chip.start + 20, chip.stop - 20)
        assert np.abs(back[:, inner] - spectra[:20, inner]).max() < 2e-4
        assert np.abs(back[:, chip] - spectra[:20, chip]).max() < 0.05


def test_a_lower_resolution_keeps_the_equivalent_width_and_widens_by_the_quadrature(line):
    area, centre, sd = moments(broadened(line, GRID.wavelength)[0])
    assert area == pytest.approx(moments(line[0])[0], rel=1e-6)
    assert centre == pytest.approx(LINE, abs=1e-6)
    assert sd == pytest.approx(LSF * 22_500 / 21_375, rel=1e-4)


def test_a_lower_resolution_keeps_each_chips_mean_and_meets_one_twin_of_two(spectra):
    flux, _, _ = changed(spectra[:20], "resolution")
    assert np.array_equal(flux[1::2], spectra[1:20:2])
    for chip in GRID.detectors:
        assert flux[:, chip].mean(axis=1) == pytest.approx(spectra[:20, chip].mean(axis=1), rel=1e-5)
    assert np.all(flux[::2].std(axis=1) < spectra[:20:2].std(axis=1))


def test_a_tenth_of_the_pixels_is_masked_at_random():
    _, _, masked = changed(np.ones((200, len(GRID))), "pixels")
    assert masked.mean() == pytest.approx(0.1, abs=2e-3)
    assert masked.mean(axis=0).std() < 0.03
    assert (masked[:, 1:] & masked[:, :-1]).mean() == pytest.approx(0.01, abs=1e-3)


def test_a_tenth_of_the_pixels_is_masked_in_blocks_of_each_stars_own():
    masked = blocks((500, len(GRID)), np.random.default_rng(3))
    assert masked.mean() == pytest.approx(0.1, abs=5e-3)
    assert np.abs(masked.mean(axis=0) - 0.1).max() < 0.07
    for star in masked:
        edges = np.flatnonzero(np.diff(star.astype(int)))
        inside = edges[1:-1] if star[0] or star[-1] else edges
        assert np.all(np.diff(inside) > 0)
        assert len({edge % 50 for edge in edges}) == 1
    assert len({tuple(star) for star in masked}) == 500


def test_slopes_are_straight_have_no_mean_and_the_right_size():
    factors = slopes(2000, np.random.default_rng(4), GRID.wavelength)
    for chip in GRID.detectors:
        part = factors[:, chip]
        assert np.abs(part.mean(axis=1) - 1).max() < 1e-12
        assert np.abs(np.diff(part, 2, axis=1)).max() < 1e-12
        assert (part[:, -1] - 1).mean() == pytest.approx(0, abs=1e-3)
        assert (part[:, -1] - 1).std() == pytest.approx(0.01, rel=0.05)
    first, second, _ = (factors[:, chip.stop - 1] - 1 for chip in GRID.detectors)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("kind", ["labels", *LABEL_SD])
def test_labels_get_errors_of_the_right_size_and_flux_stays(kind):
    flux, parameters, masked = changed(np.ones((4000, 10)), kind)
    error = parameters - [4500.0, 2.0, 0.0]
    expected = np.array([sd if kind in ("labels", name) else 0 for name, sd in LABEL_SD.items()])
    assert error.std(axis=0) == pytest.approx(expected, rel=0.05)
    assert np.all(np.abs(error.mean(axis=0)) <= 4 * expected / np.sqrt(4000))
    assert np.all(flux == 1)
    assert not masked.any()


@pytest.mark.parametrize("kind", CASES)
def test_the_same_seed_gives_the_same_stars_and_the_input_is_left_alone(kind, spectra):
    before = spectra[:10].copy()
    first, again, other = (
        changed(spectra[:10], kind),
        changed(spectra[:10], kind),
        changed(spectra[:10], kind, 2),
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    same = all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert same == (kind in ("none", "resolution"))
    assert np.array_equal(spectra[:10], before)


def test_an_unknown_kind_is_refused(spectra):
    with pytest.raises(ValueError, match="no kind"):
        changed(spectra[:2], "rain")


def test_without_perturbation_it_is_the_twin_search_of_the_report(model, survey):
    latents = perturbed_latents(model, survey, "none", stars=200)
    # noise is 1 in these units; the continuum rescales the variance here and not there
    assert np.abs(latents - embed_survey(model, survey, 100)[:200]).max() < 0.15


@pytest.fixture(scope="module")
def results(model, survey, thin_survey):
    """Two models measured, and one that was not."""
    two = fit(thin_survey, name="two", components=20, normalise=False, parameters=("teff", "logg"))
    measured = [
        {
            "label": label,
            "card": {"parameters": list(each.card.parameters)},
            "robustness": robustness(each, pairs, stars=stars),
        }
        for label, each, pairs, stars in (("shipped", model, survey, 300), ("two", two, thin_survey, 100))
    ]
    return [*measured, {"label": "old", "card": {"parameters": ["teff"]}}]


def test_label_errors_cost_fewer_twins_when_they_are_known(model, survey):
    def recovered(embed=None):
        latents = perturbed_latents(model, survey, "labels", embed, stars=400)
        return twin_search(latents, twin_rows(survey)[:400]).recovered

    blind = recovered(lambda flux, parameters, variance: model.encode(flux, parameters, variance))
    assert blind < recovered() - 0.05


def test_slopes_meet_the_normaliser(results):
    found = {kind: case["recovered"] for kind, case in results[0]["robustness"]["cases"].items()}
    assert found["slopes"] == pytest.approx(found["none"], abs=0.02)
    assert found["pixels"] == pytest.approx(found["none"], abs=0.05)


def test_a_models_own_way_of_embedding_is_used(model, survey):
    masked = []

    def useless(flux, parameters, variance):
        masked.append(np.isinf(variance).mean())
        assert flux.shape == variance.shape
        assert parameters.shape == (len(flux), 3)
        return np.random.default_rng(1).normal(size=(len(flux), 4))

    found = robustness(model, survey, useless, stars=100)["cases"]
    assert found["none"]["recovered"] < 0.1
    assert dict(zip(found, masked, strict=True))["pixels"] == pytest.approx(0.1, abs=0.01)


def test_only_labels_that_a_model_is_given_can_be_wrong(results):
    assert set(results[0]["robustness"]["cases"]) == set(CASES)
    assert set(results[1]["robustness"]["cases"]) == set(CASES) - {"fe_h"}
    lines = robustness_table(results).splitlines()
    assert lines[0] == "| perturbation | shipped | two |"
    assert len(lines) == 2 + len(CASES)
    assert [line.split(" |")[0] for line in lines if line.endswith("| - |")] == ["| error in fe_h"]


def test_the_picture_shows_the_measured_models(results, tmp_path):
    name, _ = figures.robustness(tmp_path, results)
    assert imread(tmp_path / name).std() > 0.05
    assert figures.robustness(tmp_path, results[2:]) is None
