import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from model.bundle import REFERENCE, load_model, save_model
from model.errors import ModelFileError


def test_a_model_comes_back_as_it_was(model, tmp_path, spectra, survey):
    save_model(model, tmp_path / "copy.safetensors")
    copy = load_model(tmp_path / "copy.safetensors")
    assert copy.card == model.card
    assert copy.normaliser.header() == model.normaliser.header()
    assert np.array_equal(
        copy.encode(spectra[:2], survey.parameters[:2]), model.encode(spectra[:2], survey.parameters[:2])
    )
    assert [path.name for path in tmp_path.iterdir()] == ["copy.safetensors"]


def test_the_version_tells_models_apart(model, tmp_path):
    other = load_model(REFERENCE)
    other.basis.polynomial = other.basis.polynomial + 1e-3
    save_model(other, tmp_path / "other.safetensors")
    assert load_model(tmp_path / "other.safetensors").card.identity != model.card.identity


def test_the_shipped_model_is_small():
    assert REFERENCE.stat().st_size < 15e6


def header(**card):
    fields = {"name": "a", "version": "1", "method": "polydis", "parameters": {}, "latent_dim": 1, "metric": ""}
    return {"format": "chemtwin-model-1", "card": fields | card}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"format": "chemtwin-model-9"},
        header(),
        header(method="magic"),
        header(extra=1),
        header(parameters={"teff": 3}),
        header(typical_errors={"teff": "many"}),
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    save_file({"wavelength": np.arange(1.0, 5.0)}, path, metadata={"chemtwin": json.dumps(content)})
    with pytest.raises(ModelFileError, match=r"bad\.safetensors"):
        load_model(path)


@pytest.mark.parametrize("cut", [0, 7, 1000])
def test_a_damaged_file_is_refused(tmp_path, cut):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(REFERENCE.read_bytes()[:cut])
    with pytest.raises(ModelFileError, match="cannot read"):
        load_model(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="cannot read"):
        load_model(tmp_path / "none.safetensors")
