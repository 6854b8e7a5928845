import pytest

from training.config import PRESETS, NetworkConfig, preset_path, read_config

FADER = PRESETS / "faderdis-paper.toml"
NAMES = sorted(path.stem for path in PRESETS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_whole(name):
    assert read_config(PRESETS / f"{name}.toml").method == name.partition("-")[0]


def test_the_paper_presets_follow_appendix_a():
    fader, factor = read_config(FADER), read_config(PRESETS / "factordis-paper.toml")
    assert isinstance(fader, NetworkConfig)
    assert isinstance(factor, NetworkConfig)
    for config in (fader, factor):
        assert config.encoder == (2048, 512, 128, 32)
        assert config.decoder == (512, 2048, 8192)
        assert (config.latents, config.learning_rate, config.adversary_learning_rate) == (20, 1e-5, 1e-5)
        assert (config.inputs, config.continuum, config.schedule, config.kl) == (
            "pixels",
            "survey",
            "constant",
            0,
        )
    assert (fader.adversary, fader.disentangle, fader.bins, fader.joint_bins) == ((512, 256), 1e-5, 10, True)
    assert (fader.noise, fader.snr) == ("fixed", (100, 100))
    assert (factor.adversary, factor.disentangle) == ((4096, 1024, 512, 128, 32), 1e-4)
    assert (factor.noise, factor.gradient_penalty, factor.critic_sees) == ("none", 10, "spectra")


LAYERS_AND_LOSSES = (
    "parameters", "continuum", "inputs", "latents", "encoder", "decoder", "adversary", "reconstruction", "kl",
    "metric", "disentangle", "bins", "joint_bins", "gradient_penalty", "precision",
)  # fmt: skip


@pytest.mark.parametrize("method", ["faderdis", "factordis"])
def test_paper_fast_has_the_papers_layers_and_losses(method):
    paper, fast = (read_config(preset_path(method, name)) for name in ("paper", "paper-fast"))
    for key in LAYERS_AND_LOSSES:
        assert getattr(fast, key) == getattr(paper, key), key


def test_a_preset_that_a_method_lacks_is_named():
    with pytest.raises(ValueError, match="polydis has no preset paper-fast; it has compact, paper"):
        preset_path("polydis", "paper-fast")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lamda=1", "unknown keys lamda"),
        ("kl=true", "kl must be float, not True"),
        ("steps=1.5", "steps must be int, not 1.5"),
        ("encoder=512", "encoder must be"),
        ("snr=[1]", "snr must have 2 values"),
        ("noise=loud", "noise must be one of 'none', 'fixed', 'redrawn', not 'loud'"),
        ('parameters=["teff", "snr"]', "may not be called 'snr'"),
        ('parameters=["teff_err", "v broad"]', "may not be called 'teff_err', 'v broad'"),
        ("kl", "'kl' is not key=value"),
        ("batch=0", "batch must be above 0"),
        ("snr=[0, 10]", "snr must be two rising numbers"),
        ("validate_snr=[100]", "validate_snr must begin with inf"),
        ("parameters=[]", "parameters must be one or more"),
    ],
)
def test_a_wrong_change_is_refused_and_named(change, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        read_config(FADER, [change])


def test_changes_are_made():
    config = read_config(FADER, ["kl=1", "noise=none", 'parameters=["teff", "logg"]'])
    assert isinstance(config, NetworkConfig)
    assert (config.kl, config.noise, config.parameters) == (1.0, "none", ("teff", "logg"))


def test_a_missing_key_is_named(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(FADER.read_text().replace("batch = 256\n", ""))
    with pytest.raises(ValueError, match="missing keys batch"):
        read_config(path)


@pytest.mark.parametrize("name", NAMES)
def test_any_other_name_may_be_a_parameter(name):
    config = read_config(PRESETS / f"{name}.toml", ['parameters=["teff", "logg", "fe_h", "vbroad"]'])
    assert config.parameters == ("teff", "logg", "fe_h", "vbroad")
