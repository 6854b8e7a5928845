"""Which differences between a page and what its code prints matter, and what is written into a page."""

import pytest

from tests.docs.blocks import blocks
from tests.docs.outputs import compare, compare_or_write, stale

TABLE = """    star_id      distance p_same  teff
                                   K
---------------- -------- ------ ------
SYN-2021-000000B     3.19   0.72 4303.0
SYN-2021-000055A    11.13    0.0 4616.0
"""

SAME = {
    "a number by rounding": (TABLE, TABLE.replace("11.13", "11.14")),
    "a number by 4 %": (TABLE, TABLE.replace("3.19", "3.06")),
    "a number by one unit of the last digit shown": (TABLE, TABLE.replace("0.0 ", "0.06 ")),
    "the alignment of columns": (TABLE, TABLE.replace("   ", "  ").replace("------", "-------")),
    "how an array is wrapped": ("[ 1.9 -0.  3.\n 0.25]", "[1.88 0. 3. 0.25]"),
    "a model's version": ("gaussdis@c37e0aac9bfb, 18 latents", "gaussdis@0123456789ab, 18 latents"),
    "a machine": (
        "Python 3.11.7, torch 2.13.0+cpu, embeds in 5 ms, 69.4 GiB free",
        "Python 3.12.1, torch 2.14.0, embeds in 21 ms, 8.1 GiB free",
    ),
    "a percentage by one": ("right for 9% of 600", "right for 10% of 600"),
    "a float in scientific notation": ("error 1.20e-05 dex", "error 1.21e-05 dex"),
}

OTHER = {
    "a word": (TABLE, TABLE.replace("p_same", "p_twin")),
    "another star": (TABLE, TABLE.replace("000055A", "000055B")),
    "a row less": (TABLE, TABLE[: TABLE.rindex("SYN")]),
    "a count": ("2000 stars stored", "2001 stars stored"),
    "a count of many digits": ("7514 pixels, (18,)", "7514 pixels, (17,)"),
    "a number by 6 %": (TABLE, TABLE.replace("11.13", "11.80")),
    "a number by two units": (TABLE, TABLE.replace("0.0 ", "0.2 ")),
    "a sign": ("drift -0.25", "drift 0.25"),
    "a power of ten": ("error 1.20e-05 dex", "error 1.20e-04 dex"),
    "a percentage": ("right for 81% of 600", "right for 73% of 600"),
    "an address": ("127.0.0.1:8000 is free", "127.0.0.2:8000 is free"),
    "a unit": ("in 5 ms", "in 5 min"),
    "a release": ("chemtwin 0.1.0", "chemtwin 0.1.1"),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_is_the_same(kind):
    shown, printed = SAME[kind]
    compare(printed, shown)
    compare(shown, shown)


@pytest.mark.parametrize("kind", OTHER)
def test_what_is_not(kind):
    shown, printed = OTHER[kind]
    with pytest.raises(AssertionError):
        compare(printed, shown)
    assert stale(printed, shown)


def test_what_is_written(tmp_path):
    page = tmp_path / "page.md"
    text = "# Page\n\n```bash\na\n```\n\n```text\n1.00 m\n```\n\n```bash\nb\n```\n\n```text\n1.00 m\n```\n"
    page.write_text(text)
    first, _, second, _ = blocks(page)
    compare_or_write(page, first, "1.00  m \n", write=True)
    assert page.read_text() == text, "what is the same is not touched"
    compare_or_write(page, second, "1.01 m \n\n2\n", write=True)
    assert page.read_text() == text[: text.rindex("1.00")] + "1.01 m\n\n2\n```\n"
    with pytest.raises(AssertionError, match="`make docs-outputs` writes it"):
        compare_or_write(page, blocks(page)[2], "1.20 m\n\n2\n", write=False)
