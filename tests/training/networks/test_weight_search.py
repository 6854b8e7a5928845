import pytest
import torch

from training.networks.weight_search import search

CPU = torch.device("cpu")


def test_the_search_tries_its_trials_and_goes_on(tiny, thin_survey, thin_xfe_survey, tmp_path):
    config = tiny()
    first = search(
        thin_survey, thin_xfe_survey, config, tmp_path, keys=("disentangle", "kl"), trials=2, device=CPU
    )
    assert first.startswith("trial 0: disentangle 30, kl 1")
    assert "best: --set disentangle=" in first
    more = search(
        thin_survey, thin_xfe_survey, config, tmp_path, keys=("disentangle", "kl"), trials=3, device=CPU
    )
    assert more.splitlines()[:2] == first.splitlines()[:2]
    assert len({line.partition(": ")[2] for line in more.splitlines()[:3]}) == 3
    assert len(more.splitlines()) == 4
    with pytest.raises(ValueError, match="search of something else"):
        search(
            thin_survey,
            thin_xfe_survey,
            tiny("faderdis", "latents=5"),
            tmp_path,
            keys=("kl",),
            trials=3,
            device=CPU,
        )


def test_a_weight_that_is_none_is_refused(tiny, thin_survey, thin_xfe_survey, tmp_path):
    with pytest.raises(ValueError, match="latents is no positive number"):
        search(thin_survey, thin_xfe_survey, tiny(), tmp_path, keys=("latents",), trials=1, device=CPU)
