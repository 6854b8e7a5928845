from itertools import product

import h5py
import numpy as np
import pytest

from training.config import PRESETS, read_config
from training.random_streams import SEED, EmulatorStream, Stream, entropy, generator, torch_seed
from training.surveys.synthetic_survey import synthesize

ROWS = [(row,) for row in (0, 1, 2, 3, 512, 1024)]
KEYS: dict[Stream, list[tuple[int, ...]]] = {
    Stream.SURVEY_NOISE: ROWS,
    Stream.TRAINING_STEP: ROWS,
    Stream.TRAINING_ORDER: ROWS,
    Stream.TRAINING_NOISE: ROWS,
    Stream.EVALUATION_NOISE: ROWS,
    Stream.PERTURBATION: ROWS,
    Stream.CONTINUUM_NOISE: ROWS,
    Stream.METRIC_NOISE: ROWS,
    Stream.METRIC_REPEATS: [(repeat, *row) for repeat in (0, 1) for row in ROWS],
    Stream.FITTED_NOISE: [(50,), (100,)],
}
"""What streams are asked for beside their seed: rows, steps, epochs, repeats, S/N."""

LABELS = [
    [4389.820883352029, 2.7871182746828, -0.1759025307888355],
    [4303.083100690591, 2.234264105093801, -0.1759025307888355],
    [4558.715531182776, 2.2475422952546578, 0.005837294555743527],
    [4273.382819267475, 2.4105416247714118, 0.005837294555743527],
]
FLUX = [0.8410032987594604, 0.8064239025115967, 0.8830568194389343, 0.8840441703796387]


def seeds_of(stream: Stream) -> list[int | None]:
    """A survey's seed is 0 or more, a training's 1 or more, that of published errors an S/N."""
    if SEED not in stream.value:
        return [None]
    if stream is Stream.PUBLISHED_ERRORS:
        return [50, 100]
    return list(range(0 if stream.name.startswith("SURVEY") else 1, 40))


def test_no_two_streams_meet():
    """Nor do those of two seeds; entropy that ends in zeros is the same as without them."""
    owner: dict[tuple[int, ...], tuple[Stream, int | None, tuple[int, ...]]] = {}
    for stream in Stream:
        for seed, keys in product(seeds_of(stream), KEYS.get(stream, [()])):
            words = entropy(stream, *keys, seed=seed)
            while words and words[-1] == 0:
                words.pop()
            assert owner.setdefault(tuple(words), (stream, seed, keys)) == (stream, seed, keys)


def test_names_are_of_different_streams():
    assert len(Stream.__members__) == len(Stream)
    assert not {stream.value for stream in EmulatorStream} & {stream.value for stream in Stream}


@pytest.mark.parametrize(
    ("stream", "keys", "seed", "words"),
    [
        (Stream.SURVEY_LABELS, (), 2021, [2021, 1]),
        (Stream.SURVEY_NOISE, (512,), 2021, [2021, 2, 512]),
        (Stream.SURVEY_BROADENING, (), 7, [7, 12]),
        (Stream.TRAINING_ORDER, (3,), 1, [1, 7, 3]),
        (Stream.TRAINING_NOISE, (512,), None, [0, 4, 512]),
        (Stream.EVALUATION_NOISE, (512,), None, [0, 5, 512]),
        (Stream.PERTURBATION, (512,), None, [0, 7, 512]),
        (Stream.CONTINUUM_NOISE, (0,), None, [0, 8, 0]),
        (Stream.METRIC_NOISE, (0,), None, [0, 10, 0]),
        (Stream.METRIC_REPEATS, (1, 512), None, [0, 11, 1, 512]),
        (Stream.RANDOM_PARTNERS, (), None, 6),
        (Stream.RANKED_TWINS, (), None, 7),
        (Stream.IDEAL_POSTERIORS, (), None, 8),
        (Stream.FITTED_TWINS, (), None, 10),
        (Stream.FITTED_NOISE, (50,), None, [11, 50]),
        (Stream.RANDOM_PAIRS, (), None, 12),
        (Stream.PUBLISHED_ERRORS, (), 50, [12, 50]),
        (EmulatorStream.HELD_OUT_SPECTRA, (), 20261122, [7, 20261122]),
        (EmulatorStream.RESPONSE_LABELS, (), 20261123, 20261123),
        (EmulatorStream.FITTED_SUBSET, (), 1, 1),
    ],
)
def test_a_stream_gives_the_numbers_that_it_has_always_given(stream, keys, seed, words):
    """Published surveys and figures depend on them."""
    expected = np.random.default_rng(words).random(4)
    assert np.array_equal(generator(stream, *keys, seed=seed).random(4), expected)


def test_a_training_step_gives_the_numbers_that_it_has_always_given():
    expected = np.random.SeedSequence([1, 3, 77]).generate_state(1)[0]
    assert torch_seed(Stream.TRAINING_STEP, 77, seed=1) == expected


def test_a_seed_too_many_or_too_few_is_an_error():
    with pytest.raises(ValueError, match="SURVEY_LABELS takes a seed"):
        generator(Stream.SURVEY_LABELS)
    with pytest.raises(ValueError, match="RANDOM_PAIRS takes no seed"):
        generator(Stream.RANDOM_PAIRS, seed=1)


def test_training_leaves_seed_0_to_the_evaluation():
    with pytest.raises(ValueError, match="seed must be above 0, not 0"):
        read_config(PRESETS / "faderdis-compact.toml", ["seed=0"])


def test_a_published_seed_gives_the_same_survey(emulator, tmp_path):
    """The labels as `chemtwin survey synthesize --seed 2021` drew them before streams had names."""
    synthesize(tmp_path / "s.h5", emulator, 2, seed=2021, snr=100)
    with h5py.File(tmp_path / "s.h5") as file:
        labels = np.stack([file[name][:] for name in ("teff", "logg", "fe_h")], axis=1)
        flux = file["flux"][:, 1000]
    assert labels == pytest.approx(np.array(LABELS), abs=1e-9)
    assert flux == pytest.approx(FLUX, abs=1e-5)
