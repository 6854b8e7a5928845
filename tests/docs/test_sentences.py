"""Pages have no sentence of more than 30 words."""

from runpy import run_path

import pytest

from tests.conftest import ROOT
from tests.docs.blocks import PAGES

SCRIPT = run_path(str(ROOT / "docs" / "sentences.py"))
main, sentences, too_long = (SCRIPT[name] for name in ("main", "sentences", "too_long"))

THIRTY = " ".join(["word"] * 29)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_sentence_is_too_long(page):
    assert too_long(page.read_text()) == []


def test_words_are_counted_in_sentences_of_paragraphs_and_lists(tmp_path, capsys):
    long = f"A {THIRTY} more."
    assert len(too_long(f"{long}\n\n- {long}\n")) == 2
    assert too_long(f"A {THIRTY}. It {THIRTY}. `code` {THIRTY}.") == []
    assert too_long(f"# {long}\n\n```text\n{long}\n```\n\n| a |\n|---|\n| {long} |\n") == []
    shown = list(
        sentences('It is.\n\nA *star*, `p_same` 0.1 of $a + b$ here. `code` begins (one). "Two" ends.\n')
    )
    assert shown == [
        (1, "It is."),
        (3, "A star, Code 0.1 of Formula here."),
        (3, "Code begins (one)."),
        (3, '"Two" ends.'),
    ]
    page = tmp_path / "page.md"
    page.write_text(f"Short.\n\n{long}\n")
    assert main([str(page)]) == 1
    assert capsys.readouterr().out.startswith(f"{page}:3: a sentence of 31 words: A word")
