"""A few hundred damaged files through benchmarks/hostile/fuzz.py, and what its long runs found."""

import random

import pytest

from benchmarks.hostile.fuzz import LONGEST, damage, outcome, sound_files
from tests.conftest import ASPCAP


def test_sound_files_reach_the_model(model):
    assert [outcome(content, model) for content in sound_files()].count("sound") == 3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_refused_or_sound(model, seed, times):
    """`outcome` raises for all else: another exception, seconds, megabytes, a message that echoes."""
    rng, files = random.Random(seed), sound_files()
    outcomes = set()
    for _ in range(100 * times):
        content = rng.choice(files)
        for _ in range(rng.randint(1, 4)):
            content = damage(content, rng)[:LONGEST]
        outcomes.add(outcome(content, model))
    assert {"bad_fits", "bad_npz", "not_npz"} <= outcomes


@pytest.mark.parametrize(
    "card", ["NAXIS   =           4294967296", "HIERARCH NAXIS = 4294967296", "naxis   = 4294967296"]
)
def test_a_second_number_of_axes_does_not_make_astropy_count(model, card):
    """Found in the first minute: the size came from the first card, astropy counted to the last one."""
    content = ASPCAP.read_bytes()
    start = content.index(b"COMMENT")
    content = content[:start] + card.ljust(80).encode() + content[start + 80 :]
    assert outcome(content, model) == "bad_fits"


def test_bytes_after_the_last_hdu_are_left_alone(model):
    assert outcome(ASPCAP.read_bytes() + b"\0" * 2880 + b"junk", model) == "sound"
