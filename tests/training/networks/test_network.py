import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file

from app.cli.main import cli
from model.bundle import load_model, save_model
from tests import forked
from tests.pages import check_self_contained, draw_nothing
from tests.training.small_surveys import contents, write
from training.networks.network import TENSORBOARD, train
from training.networks.preprocessing import Frontend
from training.networks.run_report import losses
from training.networks.trainer import Processes, Trainer
from training.networks.validation import Validation, check_validation
from training.random_streams import Stream, torch_seed
from training.surveys.survey import Survey
from training.train import checkpoint_folder, train_model

CPU = torch.device("cpu")
SMALL = [
    "--method", "faderdis", "--set", "components=20", "--set", "encoder=[48]", "--set", "decoder=[48]", "--set",
    "adversary=[32]", "--set", "batch=128", "--set", "continuum=survey", "--device", "cpu",
]  # fmt: skip


def run_here(*arguments: str) -> None:
    """Run a command in this process, which has imported everything, with one thread as the others have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    finally:
        torch.set_num_threads(threads)


def digest(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("method", ["faderdis", "factordis"])
@pytest.mark.parametrize("inputs", ["components", "pixels"])
def test_training_learns_to_rebuild_spectra(tiny, thin_survey, thin_xfe_survey, tmp_path, method, inputs):
    changes = [f"inputs={inputs}", "critic_steps=2"]
    if inputs == "pixels":
        changes += ["reconstruction=mse", "kl=0", "noise=fixed", "snr=[100, 100]", "disentangle=1e-4"]
    run = train(thin_survey, thin_xfe_survey, tiny(method, *changes), tmp_path, name="tiny", device=CPU)
    first, last = run.record["history"][0], run.record["history"][-1]
    assert [first["step"], last["step"]] == [30, 60]
    flux = thin_survey.flux(slice(0, 200)).astype(float)
    u = thin_survey.parameters[:200]
    assert last["recast"] < first["recast"]
    assert run.model.card.latent_dim == 20
    assert run.record["spectra_per_s"] > 0
    assert list((tmp_path / "tensorboard").glob("events*"))
    save_model(run.model, tmp_path / "m.safetensors")
    assert np.array_equal(load_model(tmp_path / "m.safetensors").encode(flux, u), run.model.encode(flux, u))


@pytest.mark.long("four trainings, of which two are killed")
def test_a_run_killed_in_the_middle_ends_as_if_it_had_not_been(
    thin_survey, thin_xfe_survey, tmp_path, monkeypatch
):
    """SIGKILL after the first checkpoint, twice; the model file is the same to the last byte."""
    common = [
        "model",
        "train",
        str(thin_survey.path),
        "--method",
        "faderdis",
        "--validation",
        str(thin_xfe_survey.path),
        *SMALL,
    ]
    common += ["--set", "steps=300", "--set", "validate_every=100"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    with monkeypatch.context() as patch:
        draw_nothing(patch)
        run_here(*common, "--out", str(whole), "--name", "same")
    state = checkpoint_folder(cut) / "state.pt"
    kills = 0
    while kills < 2:
        process = forked.start([*common, "--out", str(cut), "--name", "same"], environment)
        before = state.stat().st_mtime_ns if state.exists() else 0
        deadline = time.monotonic() + 120
        while not state.exists() or state.stat().st_mtime_ns == before:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.communicate(30)
        kills += 1
        assert not cut.exists()
    run_here(*common, "--out", str(cut), "--name", "same")
    assert digest(cut) == digest(whole)
    assert json.loads((tmp_path / "cut.safetensors.json").read_text())["steps"] == 300
    check_self_contained((tmp_path / "cut.safetensors.html").read_text(), pictures=2)
    curves = losses(checkpoint_folder(whole) / TENSORBOARD)
    assert set(curves) == {"reconstruction", "penalty", "adversary", "kl"}
    steps, values = curves["reconstruction"]
    assert steps.tolist() == list(range(100, 301, 100))
    assert values[-1] < values[0]


def test_a_checkpoint_of_another_run_is_refused(tiny, thin_survey, tmp_path):
    train(thin_survey, None, tiny("faderdis", "steps=2"), tmp_path, name="a", device=CPU)
    with pytest.raises(ValueError, match="checkpoint of another run"):
        train(thin_survey, None, tiny("faderdis", "steps=3"), tmp_path, name="a", device=CPU)


def test_two_processes_train_what_one_does(thin_survey, tmp_path):
    """torchrun on two CPU processes: the same batches and noise, gradients averaged."""
    common = ["model", "train", str(thin_survey.path), "--method", "faderdis", *SMALL, "--set", "steps=20"]
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run_here(*common, "--out", str(one))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    forked.program(tmp_path)
    run_of_two = [sys.executable, *launch, str(tmp_path / "chemtwin"), *common, "--out", str(two)]
    subprocess.run(run_of_two, check=True, env=environment, capture_output=True, timeout=300)
    alone, together = load_file(one), load_file(two)
    for name, values in alone.items():
        assert np.allclose(values, together[name], atol=2e-4), name
    assert json.loads((tmp_path / "two.safetensors.json").read_text())["processes"] == 2


def test_the_seed_decides(tiny, thin_survey):
    config = tiny()
    frontend = Frontend.fit(thin_survey, config)

    def after_three_steps(seed: int) -> np.ndarray:
        trainer = Trainer(thin_survey, frontend, dataclasses.replace(config, seed=seed), CPU, Processes())
        for _ in range(3):
            trainer.step()
        return trainer.weights()["decoder.0.weight"]

    assert np.array_equal(after_three_steps(1), after_three_steps(1))
    assert not np.array_equal(after_three_steps(1), after_three_steps(2))


def test_early_stopping_keeps_the_best_step(tiny, thin_survey, thin_xfe_survey, tmp_path):
    """A learning rate that ruins the network: it stops after `patience` validations and keeps the best."""
    config = tiny(
        "faderdis", "steps=400", "validate_every=20", "patience=2", "learning_rate=0.3", "clip_norm=0"
    )
    run = train(thin_survey, thin_xfe_survey, config, tmp_path, name="tiny", device=CPU)
    history = run.record["history"]
    best = max(history, key=lambda figures: figures["score"])
    assert run.record["best_step"] == best["step"]
    assert run.record["steps"] == best["step"] + 40


def test_what_decides_refuses_the_wrong_pairs(survey, xfe_survey, catalogue):
    three, two = ("teff", "logg", "fe_h"), ("teff", "logg")
    check_validation(survey, xfe_survey, three)
    for validation, parameters, message in (
        (survey, three, "is the training survey"),
        (xfe_survey, two, "pairs that share it"),
        (dataclasses.replace(survey, digests=survey.digests + 1), three, "--own-fe-h"),
        (Survey.open(catalogue), two, "noise of its own"),
        (dataclasses.replace(xfe_survey, wavelength=xfe_survey.wavelength + 1), three, "wavelength grid"),
    ):
        with pytest.raises(ValueError, match=message):
            check_validation(survey, validation, parameters)


def test_a_survey_smaller_than_a_batch_is_refused_before_any_work(tiny, tmp_path):
    survey = Survey.open(write(tmp_path / "s.h5", contents(104)))
    few = r"has 104 stars, fewer than a batch of 128: too few .* with chemtwin model adapt .*--set batch=104"
    with pytest.raises(ValueError, match=few):
        train(survey, None, tiny(), tmp_path / "run", name="t", device=CPU)


def test_training_does_not_use_abundances_or_twins(tiny, thin_survey, tmp_path):
    bare = tmp_path / "bare.h5"
    bare.write_bytes(thin_survey.path.read_bytes())
    with h5py.File(bare, "a") as file:
        for name in ("abundances", "twin_of", "group"):
            del file[name]
    config = tiny("faderdis", "steps=3")
    one, two = (
        train(s, None, config, tmp_path / name, name="t", device=CPU).model.arrays()
        for name, s in (("full", thin_survey), ("bare", Survey.open(bare)))
    )
    assert all(np.array_equal(values, two[name]) for name, values in one.items())


def test_the_seed_decides_the_noise():
    seeds = {
        torch_seed(Stream.TRAINING_STEP, step, seed=seed) for seed in (0, 1, 2, 2**40) for step in range(100)
    }
    assert len(seeds) == 400
    assert max(seeds) < 2**32


def test_a_training_that_diverges_says_so(tiny, thin_survey, thin_xfe_survey, tmp_path):
    config = tiny("faderdis", "steps=40", "learning_rate=1e30", "clip_norm=0")
    with pytest.raises(ValueError, match="has diverged"):
        train(thin_survey, thin_xfe_survey, config, tmp_path / "a", name="t", device=CPU)
    with pytest.raises(ValueError, match="has diverged"):
        train(thin_survey, None, config, tmp_path / "b", name="t", device=CPU)


def test_a_deliberate_leak_does_not_win(tiny, thin_survey, thin_xfe_survey):
    """u appended to z: a network that hands u on scores worse than the same network without the leak."""
    config = tiny("faderdis", "steps=300")
    frontend = Frontend.fit(thin_survey, config)
    trainer = Trainer(thin_survey, frontend, config, CPU, Processes())
    for _ in range(config.steps):
        trainer.step()
    validate = Validation(thin_xfe_survey, frontend, config, CPU)
    decode = lambda z, u: trainer.decode(z[:, : config.latents], u)  # noqa: E731
    honest = validate(trainer.encode, decode)

    def leaking(weight: float, column: int):
        def encode(x, u):
            return torch.cat([trainer.encode(x, u)[0], weight * u[:, column : column + 1]], dim=1), None

        return encode

    for weight in (0.5, 3.0):
        for column in range(3):
            assert validate(leaking(weight, column), decode)["score"] < honest["score"], (weight, column)


def test_the_cuda_path(tiny, thin_survey, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: the GPU path was not run here")
    run = train(
        thin_survey,
        None,
        tiny("faderdis", "precision=bf16"),
        tmp_path,
        name="tiny",
        device=torch.device("cuda"),
    )
    assert "cpu" not in run.record["device"]


def test_bfloat16_trains_too(tiny, thin_survey, tmp_path):
    run = train(thin_survey, None, tiny("faderdis", "precision=bf16"), tmp_path, name="tiny", device=CPU)
    assert all(np.isfinite(values).all() for values in run.model.arrays().values())


def test_polydis_is_trained_by_the_same_command(thin_survey, thin_xfe_survey, tmp_path):
    from training.config import PRESETS, read_config

    out = tmp_path / "poly.safetensors"
    config = read_config(PRESETS / "polydis-paper.toml", ["components=10"])
    summary = train_model(thin_survey.path, thin_xfe_survey.path, config, out, name="poly", device=None)
    model = load_model(out)
    assert model.card.identity in summary
    page = (tmp_path / "poly.safetensors.html").read_text()
    check_self_contained(page, pictures=0)
    assert f"{len(thin_survey)} stars, seed {thin_survey.seed}" in page
    assert "<td><code>components</code></td>\n<td>10</td>" in page
    assert model.twins.shape == (10, 10)
    assert np.linalg.eigvalsh(model.twins).min() > 0
