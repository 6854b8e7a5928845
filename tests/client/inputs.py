"""What the tests of inputs share."""

import numpy as np


def codes(chem, labels, sources, **keywords):
    """The codes of `embed_many`, "" for a star that is stored."""
    done = chem.embed_many(sources, labels, progress=False, **keywords)
    assert all(
        (outcome == "refused") == bool(code)
        for outcome, code in zip(done["outcome"], done["code"], strict=True)
    )
    return done, [str(code) for code in done["code"]]


def objects(*values):
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made
