"""The reference surveys of research/benchmark.md are what their commands draw."""

import re

import numpy as np
import pytest

from tests.conftest import ROOT
from training.surveys.checksums import SAMPLED, STARS, checksums, labels_digest, sampled
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import PARAMETER_UNITS, draw_labels, synthesize

REFERENCE = {
    "train": (25_000, 1, 2, False),
    "test": (25_000, 2, 2, False),
    "validation": (5_000, 3, 2, True),
    "test_xfe": (25_000, 4, 2, True),
    "groups": (1_000, 5, 10, False),
}
PAGE = (ROOT / "research" / "benchmark.md").read_text()


@pytest.mark.parametrize("name", REFERENCE)
def test_a_reference_survey_is_what_the_page_says(emulator, name):
    groups, seed, members, own = REFERENCE[name]
    command = f"chemtwin survey synthesize {name}.h5 --pairs {groups}"
    assert command in PAGE
    box = (emulator.labels, emulator.lo, emulator.hi)
    labels = draw_labels(groups, seed, *box, members=members, own_fe_h=own)[:STARS]
    stellar = [emulator.labels.index(parameter) for parameter in PARAMETER_UNITS]
    others = [column for column in range(labels.shape[1]) if column not in stellar]
    found = re.search(rf"\| {name} \| `(\w+)` \| ([\d. ]+) \|", PAGE)
    assert found is not None
    assert labels_digest(labels[:, stellar + others]) == found[1]
    flux = sampled(emulator(labels[:SAMPLED]))
    np.testing.assert_allclose(flux, np.array(found[2].split(), dtype=float), atol=1e-4)


def test_the_command_s_checksums_are_of_labels_and_fluxes(emulator, tmp_path):
    texts = []
    for seed in (1, 1, 2):
        synthesize(tmp_path / "small.h5", emulator, 3, seed)
        texts.append(str(checksums(Survey.open(tmp_path / "small.h5"))))
    assert texts[0] == texts[1] != texts[2]
