"""GaussDis from noisy spectra: its likelihood, and a training on spectra of another generator."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import multivariate_normal

from app.cli.main import cli
from model.bundle import REFERENCE, load_model
from model.errors import InputError
from model.methods.gaussdis import UNUSUAL, GaussDis
from model.methods.measured_stars import Measured
from model.methods.scatter import line_strength, scaled_within
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Spectrum
from tests.pages import check_self_contained, draw_nothing
from training.fitting.marginal_likelihood import Correction, Groups
from training.fitting.train_observed import STATE, train_observed, with_residual_variance
from training.surveys.survey import Survey
from training.train import train_gaussdis_model

OTHER = Path(__file__).with_name("second_generator.h5")
"""30 pairs and 120 single stars of `benchmarks.second_generator`."""

SNR = 100.0


@pytest.fixture(scope="module")
def model() -> GaussDis:
    loaded = load_model(REFERENCE)
    assert isinstance(loaded, GaussDis)
    return loaded


@pytest.fixture(scope="module")
def noisy(model: GaussDis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey of 30 pairs and 120 single stars of another generator, with noise, masked pixels and label errors."""
    path = tmp_path_factory.mktemp("noisy") / "noisy.h5"
    random = np.random.default_rng(4)
    with h5py.File(OTHER) as file, h5py.File(path, "w") as out:
        kinds = "pairs", "singles"
        flux = np.concatenate([file[f"{kind}/flux"][:] * file.attrs["flux_scale"] for kind in kinds])
        ivar = np.full(flux.shape, SNR**2, np.float32)
        ivar[random.random(flux.shape) < 0.1] = 0
        out["flux"] = np.where(ivar > 0, flux + random.normal(size=flux.shape) / SNR, 9.0).astype(np.float32)
        out["ivar"], out["wavelength"] = ivar, model.grid.wavelength
        out["star_id"] = [f"star{number:03d}" for number in range(len(flux))]
        out["snr"] = np.full(len(flux), SNR)
        out["group"] = np.concatenate([np.repeat(np.arange(30), 2), np.full(120, -1)])
        for name, error in {"teff": 20.0, "logg": 0.03, "fe_h": 0.01}.items():
            exact = np.concatenate([file[f"{kind}/{name}"][:] for kind in kinds])
            low, high = model.card.parameters[name]
            out[name] = np.clip(exact + error * random.normal(size=len(exact)), low, high)
            out[f"{name}_err"] = np.full(len(exact), error)
    return path


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that is short and takes few stars."""
    monkeypatch.setattr("training.fitting.train_observed.FEWEST_TO_TRAIN", 150)
    monkeypatch.setattr("training.fitting.marginal_likelihood.STEPS", 40)
    monkeypatch.setattr("training.fitting.marginal_likelihood.CHECKPOINT_EVERY", 25)
    monkeypatch.setattr("training.fitting.marginal_likelihood.STARS", 40)
    monkeypatch.setattr("training.fitting.observed_basis.COMPONENTS", 2)
    monkeypatch.setattr("training.fitting.observed_basis.STEPS", 2)


def stars_of(model: GaussDis, count: int) -> Measured:
    random = np.random.default_rng(1)
    size = len(model.basis.components)
    noise = random.normal(size=(count, size, 2 * size)) / 100
    return Measured(
        0.05 * random.normal(size=(count, size)),
        noise @ noise.transpose(0, 2, 1),
        random.uniform(*model.ranges.T, size=(count, 3)),
        np.tile([50.0, 0.1, 0.02], (count, 1)),
        np.zeros(count),
    )


def test_the_likelihood_is_the_normal_density_of_groups_with_latents_and_shared_misfit(model: GaussDis) -> None:
    stars = stars_of(model, 12)
    correction = Correction(model, stars)
    random = np.random.default_rng(2)
    with torch.no_grad():
        for parameter in correction.parameters():
            parameter += 0.1 * torch.tensor(random.normal(size=parameter.shape))
    corrected = correction.model()
    linear, latents = correction.about(corrected, stars, np.zeros((12, model.card.latent_dim)))
    group = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 4])
    found = correction.log_likelihood(linear, torch.tensor(group)).detach().numpy()

    fitted = corrected.fit(
        stars._replace(covariances=stars.covariances + corrected.shared), np.zeros_like(latents)
    )
    assert np.array_equal(fitted.latents, latents)
    latents, labels = latents @ corrected.population.T, fitted.parameters
    assert np.abs(labels - stars.parameters).max() > 10
    slope = corrected.response.by_latents(latents, labels)
    mean = corrected.response(latents, labels) - np.einsum("nd,ndk->nk", latents, slope)
    strength = line_strength(model.basis, stars.parameters)[:, None, None]
    errors = np.einsum("nuk,nul->nkl", fitted.slopes, fitted.slopes)
    own = stars.covariances + model.scattered(latents, stars.parameters) + errors
    growth = np.exp(scaled_within(model.ranges, stars.parameters) @ corrected.misfit_growth)
    own = own + growth[:, None, None] * strength**2 * corrected.misfit
    slope = corrected.population.T @ slope
    size = stars.coefficients.shape[1]
    for number in range(5):
        rows = np.flatnonzero(group == number)
        common = np.concatenate([slope[row].T for row in rows])
        covariance = common @ common.T + np.kron(np.ones((len(rows), len(rows))), corrected.shared)
        for place, row in enumerate(rows):
            part = slice(place * size, (place + 1) * size)
            covariance[part, part] += own[row]
        density = multivariate_normal(mean[rows].ravel(), covariance)
        constant = 0.5 * len(rows) * size * np.log(2 * np.pi)
        assert found[number] == pytest.approx(
            density.logpdf(fitted.coefficients[rows].ravel()) + constant, rel=1e-6
        )


def test_a_star_alone_has_the_likelihood_of_a_group_of_one(model: GaussDis) -> None:
    stars = stars_of(model, 12)
    correction = Correction(model, stars)
    linear, _ = correction.about(correction.model(), stars, np.zeros((12, model.card.latent_dim)))
    of_groups = correction.log_likelihood(linear, torch.arange(12))
    assert torch.allclose(correction.log_likelihood(linear), of_groups, rtol=1e-9)


def test_the_population_is_nowhere_wider_than_the_chemistry_of_the_start(model: GaussDis) -> None:
    correction = Correction(model, stars_of(model, 12))
    with torch.no_grad():
        correction.excess += torch.tensor(np.random.default_rng(3).normal(size=correction.excess.shape))
    root = correction.model().population
    assert np.linalg.eigvalsh(root @ root.T).max() <= 1 + 1e-6


def test_siblings_fit_the_offset_and_count_once_for_the_population(model: GaussDis) -> None:
    stars = stars_of(model, 12)
    correction = Correction(model, stars)
    linear, _ = correction.about(correction.model(), stars, np.zeros((12, model.card.latent_dim)))

    def gradients(*arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        likelihood = correction.log_likelihood(linear, *arguments).sum()
        return torch.autograd.grad(likelihood, (correction.offset, correction.excess))

    alone, siblings, often = (
        gradients(),
        gradients(torch.arange(12) // 3),
        gradients(torch.arange(12) // 3, 5.0),
    )
    assert alone[0][0].any()
    assert not alone[0][1:].any()
    assert siblings[0][1:].all()
    assert torch.allclose(often[0], siblings[0])
    assert torch.allclose(5 * often[1], siblings[1])


def test_groups_are_told_from_single_stars() -> None:
    found = Groups.of(np.array([3, 1, 3, 2, 1, 0, 3]))
    assert sorted(found.alone.tolist()) == [3, 5]
    assert sorted(rows.tolist() for rows in found.siblings) == [[0, 2, 6], [1, 4]]


@pytest.mark.long("a training, which then goes on from its checkpoint")
def test_after_training_siblings_left_out_are_accepted(
    model: GaussDis, noisy: Path, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "trained.safetensors"
    arguments = ["model", "train", str(noisy), "--start", str(REFERENCE), "--out", str(out), "--name", "noisy"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    trained = load_model(out)
    assert isinstance(trained, GaussDis)
    assert trained.readout is not None  # the start's
    record = trained.card.training["observed"]
    assert record["stars"] == 180 - 12
    assert record["siblings"] == 2 * record["groups"] == 48
    assert trained.card.typical_errors == {"teff": 20.0, "logg": 0.03, "fe_h": 0.01}
    page = Path(f"{out}.html").read_text()
    check_self_contained(page, pictures=2)
    rows = [line for line in page.splitlines() if "by p_same" in line]
    assert len(rows) == 2
    accepted = {name: accepted_in(page, f"{name}, by p_same") for name in ("start", "trained")}
    assert accepted["trained"] >= 0.6 > 0.4 > accepted["start"]  # of 6 pairs by another generator

    draw_nothing(monkeypatch)
    again = CliRunner().invoke(cli, arguments, catch_exceptions=False)  # from the last checkpoint
    assert again.exit_code == 0
    assert load_model(out).card.version == trained.card.version
    other = [*arguments[:4], str(REFERENCE.with_name("default.safetensors")), *arguments[5:]]
    with pytest.raises(InputError, match="checkpoint of another run"):
        CliRunner().invoke(cli, other, catch_exceptions=False)


def accepted_in(page: str, name: str) -> float:
    """The fraction of siblings accepted, in the row of a report's table."""
    row = page[page.index(f"<td>{name}</td>") :].split("</tr>")[0]
    return float(re.findall(r"<td[^>]*>([^<]*)</td>", row)[4])


def test_too_few_stars_are_refused_before_the_first_is_measured(
    model: GaussDis, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GaussDis, "measure", lambda *_: pytest.fail("a star was measured"))
    with pytest.raises(InputError, match=r"has 180 stars: training takes 5000. .*chemtwin model adapt"):
        train_observed(model, Survey.open(noisy), "few", tmp_path / "run", torch.device("cpu"))
    assert not (tmp_path / "run" / STATE).exists()


def test_single_stars_correct_nothing_that_depends_on_the_parameters(
    model: GaussDis, noisy: Path, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fitting.marginal_likelihood.STEPS", 3)
    draw_nothing(monkeypatch)
    alone, out = tmp_path / "alone.h5", tmp_path / "alone.safetensors"
    shutil.copy(noisy, alone)
    with h5py.File(alone, "a") as file:
        del file["group"]
    train_gaussdis_model(alone, REFERENCE, None, out, name="alone", device="cpu")
    trained = load_model(out)
    assert isinstance(trained, GaussDis)
    before, after = np.split(trained.response.linear, [model.response.linear.shape[-1]], axis=-1)
    assert np.array_equal(before, model.response.linear)
    assert not after.any()
    assert trained.response_offset[0].any()
    assert not trained.response_offset[1:].any()
    record = trained.card.training["observed"]
    assert (record["groups"], record["factor"]) == (0, 1.0)
    assert "has no siblings" in Path(f"{out}.html").read_text()


def test_few_groups_all_judge(
    model: GaussDis, noisy: Path, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fitting.marginal_likelihood.STEPS", 3)
    monkeypatch.setattr("training.fitting.train_observed.FEWEST_GROUPS_TO_FIT", 31)
    trained = train_observed(model, Survey.open(noisy), "few", tmp_path / "run", torch.device("cpu"))
    assert len(np.unique(trained.left_out.group)) == 30
    assert trained.model.card.training["observed"]["groups"] == 0


def test_of_more_stars_than_memory_holds_some_are_drawn(
    model: GaussDis, noisy: Path, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fitting.marginal_likelihood.STEPS", 3)
    for name, most in {"FEWEST_TO_TRAIN": 100, "MOST_SINGLE": 70, "MOST_SIBLINGS": 40, "SAMPLE": 20}.items():
        monkeypatch.setattr(f"training.fitting.train_observed.{name}", most)
    trained = train_observed(model, Survey.open(noisy), "drawn", tmp_path / "run", torch.device("cpu"))
    record = trained.model.card.training["observed"]
    assert len(trained.left_out.group) == 2 * 4  # one in five of the 20 pairs whose spectra are kept
    assert (record["stars"], record["groups"]) == (70 + 60 - 8, 26)
    assert len(trained.sample) == 20 + 40 - 8


def test_a_network_takes_no_start(noisy: Path, tmp_path: Path) -> None:
    arguments = ["model", "train", str(noisy), "--out", str(tmp_path / "m.safetensors")]
    result = CliRunner().invoke(cli, [*arguments, "--method", "faderdis", "--start", str(REFERENCE)])
    assert result.exit_code == 2
    assert "faderdis takes no --start" in result.output


def test_groups_left_out_are_the_validation_of_a_survey_with_noise(noisy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes no --validation"):
        train_gaussdis_model(noisy, None, noisy, tmp_path / "m.safetensors", name="none", device="cpu")


def test_the_residual_variance_is_known_with_and_without_noise(model: GaussDis) -> None:
    """Residuals outside the basis of standard deviation 0.003, beside noise that is a tenth larger than ivar says."""
    random = np.random.default_rng(5)

    def drawn(snr: float, sd: float) -> Spectrum:
        labels = random.uniform(*model.ranges.T)
        flux = model.decode(random.normal(size=(1, model.card.latent_dim)), labels[None])[0]
        flux += random.normal(size=len(flux)) * np.hypot(sd, 1.1 / snr)
        return Spectrum(flux, np.full(len(flux), snr**2), Parameters(*labels), has_errors=True)

    found = with_residual_variance(model, [drawn(snr, 0.003) for snr in np.linspace(40, 400, 60)])
    assert found.residual_variance == pytest.approx([0.003**2, 0.21, 0.21], rel=0.1)
    usual, unusual = drawn(200.0, 0.003), drawn(200.0, 0.02)
    extra = [
        found.measure([one]).covariances[0] - model.measure([one]).covariances[0] for one in (usual, unusual)
    ]
    constant, of_noise, _ = found.residual_variance
    assert np.diagonal(extra[0]).mean() == pytest.approx(-constant, rel=0.3)  # the misfit has it
    less = UNUSUAL * constant + (UNUSUAL - 1) * of_noise / 200**2
    assert np.diagonal(extra[1]).mean() == pytest.approx(-less, rel=0.3)
