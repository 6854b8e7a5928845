import dataclasses
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from model.bundle import load_model, save_model
from model.errors import ModelFileError
from model.methods.autoencoder import Autoencoder, FaderDis
from model.methods.base import Card
from model.methods.basis import exponents
from model.spectra.grid import Grid
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Spectrum

PIXELS, COMPONENTS, LATENTS = 300, 8, 4
RANGES = {"teff": (4000.0, 5000.0), "logg": (1.5, 3.0), "fe_h": (-1.0, 0.5)}


def toy(inputs: str, metric: np.ndarray | None = None) -> Autoencoder:
    """A small network of random weights."""
    generator = np.random.default_rng(1)
    polynomial = generator.normal(0, 0.03, (len(exponents(3, 4)), PIXELS))
    polynomial[0] += 1
    width = COMPONENTS if inputs == "components" else PIXELS
    weights = {}
    for name, sizes in (("encoder", (width + 3, 16, LATENTS)), ("decoder", (LATENTS + 3, 16, width))):
        for layer, (a, b) in enumerate(pairwise(sizes)):
            weights[f"{name}.{2 * layer}.weight"] = generator.normal(0, a**-0.5, (b, a)).astype(np.float32)
            weights[f"{name}.{2 * layer}.bias"] = generator.normal(0, 0.1, b).astype(np.float32)
    return FaderDis(
        Card("toy", "1", "faderdis", RANGES, LATENTS, "Euclidean"),
        Grid(10 ** (4.2 + 6e-6 * np.arange(PIXELS))),
        None,
        polynomial=polynomial,
        components=np.linalg.qr(generator.normal(size=(PIXELS, COMPONENTS)))[0].T,
        variances=np.full(COMPONENTS, 0.5),
        discarded=np.array([1e-8]),
        scale=np.full(COMPONENTS, 0.7) if inputs == "components" else np.zeros(0),
        metric=np.eye(LATENTS) if metric is None else metric,
        twins=np.zeros((0, 0)),
        **weights,
    )


@pytest.fixture(params=["components", "pixels"])
def model(request) -> Autoencoder:
    return toy(request.param)


def stars(model: Autoencoder, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    known = generator.uniform(model.ranges[:, 0], model.ranges[:, 1], (count, 3))
    return model.basis.rebuild(generator.normal(0, 0.5, (count, COMPONENTS)), known), known


def test_the_metric_is_a_map_that_decoding_undoes(model):
    metric = np.random.default_rng(3).normal(size=(LATENTS, LATENTS))
    mapped = toy("components" if model.scale.size else "pixels", metric)
    flux, known = stars(model, 5)
    latents = model.encode(flux, known)
    assert np.allclose(mapped.encode(flux, known), latents @ metric)
    assert np.allclose(mapped.decode(latents @ metric, known), model.decode(latents, known))


def test_a_complete_spectrum_is_not_touched_and_a_masked_one_is_completed(model):
    flux, known = stars(model, 6)
    good = np.random.default_rng(4).random(flux.shape) > 0.3
    variance = np.where(good, 1e-6, np.inf)
    whole = model.encode(flux, known)
    assert np.array_equal(model.encode(flux, known, np.full(flux.shape, 1e-6)), whole)
    assert np.allclose(model.encode(np.where(good, flux, 99.0), known, variance), whole, atol=1e-2)


@pytest.mark.parametrize("masked", [0, 60])
def test_the_covariance_is_that_of_the_error(model, masked):
    """Repeats with noise, wrong parameters and missing pixels scatter as the covariance says."""
    errors = {"teff_err": 10.0, "logg_err": 0.02, "fe_h_err": 0.01}
    generator = np.random.default_rng(5)
    sigma, repeats = 0.005, 4000
    (flux,), (known,) = stars(model, 1)
    good = np.arange(PIXELS) >= masked
    noisy = flux + generator.normal(0, sigma, (repeats, PIXELS))
    given = known + generator.normal(size=(repeats, 3)) * list(errors.values())
    found = model.encode(noisy, given, np.tile(np.where(good, sigma**2, np.inf), (repeats, 1)))
    spectrum = Spectrum(flux, np.where(good, sigma**-2, 0), Parameters(*known, **errors), has_errors=True)
    expected, measured = model.covariance(spectrum), np.cov(found.T)
    assert np.linalg.norm(measured - expected) < 0.12 * np.linalg.norm(expected)


def test_the_recast_error_is_that_of_the_latent(model):
    flux, known = stars(model, 1)
    latent = model.encode(flux, known)[0]
    covariance = 1e-4 * np.diag([1.0, 2.0, 3.0, 4.0])
    draws = np.random.default_rng(6).multivariate_normal(latent, covariance, 8000)
    measured = model.decode(draws, np.tile(known, (8000, 1))).std(axis=0)
    assert np.allclose(measured, model.decode_sd(latent, known[0], covariance), rtol=0.1)


def spectra_of(model: Autoencoder, count: int) -> list[Spectrum]:
    flux, known = stars(model, count)
    return [
        Spectrum(f, np.full(PIXELS, 1e4), Parameters(*u), has_errors=True)
        for f, u in zip(flux, known, strict=True)
    ]


def test_the_same_star_gets_the_same_latent_in_any_batch_with_any_threads(model):
    """To the last bit."""
    together = spectra_of(model, 97)
    expected = np.stack([e.latent for e in model.embed(together)])
    threads = torch.get_num_threads()
    try:
        for size, count in ((1, 1), (7, 2), (64, 1)):
            torch.set_num_threads(count)
            parts = [model.embed(together[i : i + size]) for i in range(0, 97, size)]
            assert np.array_equal(np.stack([e.latent for part in parts for e in part]), expected)
        backwards = model.embed(together[::-1])[::-1]
        assert np.array_equal(np.stack([e.latent for e in backwards]), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_same_star_gets_the_same_latent_from_a_file_in_another_process(tmp_path):
    files, expected = [], []
    for inputs in ("components", "pixels"):
        model, path = toy(inputs), tmp_path / f"{inputs}.safetensors"
        save_model(model, path)
        star = spectra_of(model, 1)[0]
        np.savez(tmp_path / f"{inputs}.npz", flux=star.flux, known=star.parameters.values(tuple(RANGES)))
        files += [str(path), str(tmp_path / f"{inputs}.npz")]
        expected.append(load_model(path).embed([star])[0].latent.tobytes().hex())
    code = (
        "import sys, numpy as np; from pathlib import Path; from model.bundle import load_model\n"
        "from model.spectra.parameters import Parameters; from model.spectra.spectrum import Spectrum\n"
        "for model, star in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    s = np.load(star)\n"
        "    star = Spectrum(s['flux'], np.full(len(s['flux']), 1e4), Parameters(*s['known']), has_errors=True)\n"
        "    print(load_model(Path(model)).embed([star])[0].latent.tobytes().hex())\n"
    )
    process = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert process.stdout.split() == expected


def test_saving_keeps_every_bit(model, tmp_path):
    save_model(model, tmp_path / "one.safetensors")
    one = load_model(tmp_path / "one.safetensors")
    save_model(one, tmp_path / "two.safetensors")
    two = load_model(tmp_path / "two.safetensors")
    assert one.card.version == two.card.version
    flux, known = stars(model, 9)
    assert np.array_equal(one.encode(flux, known), two.encode(flux, known))
    assert dataclasses.replace(one.card, version="") == dataclasses.replace(model.card, version="")


def test_an_invalid_model_file_is_refused(model, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "m.safetensors"
    save_model(model, path)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for name, value in (
        ("encoder.0.weight", None),
        ("decoder.0.bias", np.zeros(3, np.float32)),
        ("metric", np.eye(3)),
    ):
        spoiled = {key: tensor for key, tensor in tensors.items() if key != name}
        if value is not None:
            spoiled[name] = value
        save_file(spoiled, path, metadata=metadata)
        with pytest.raises(ModelFileError):
            load_model(path)
