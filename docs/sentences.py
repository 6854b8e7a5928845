"""Print the sentences of pages that have more than 30 words; the exit status is 1 if there are any.

python docs/sentences.py docs/*.md

Tables, blocks of code and headings do not count. A piece of code in a sentence, or a formula, is one word.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

MOST = 30
END = re.compile(r"(?<=[.!?])[)\"'*]*\s+(?=[\"'(*]*[A-Z0-9])")
FORMULA = re.compile(r"\$[^$]+\$")


def sentences(page: str) -> Iterator[tuple[int, str]]:
    """The sentences of a page's paragraphs and lists, each with the line on which its paragraph begins."""
    outside = True
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    for before, token in zip([Token("", "", 0), *tokens], tokens, strict=False):
        if token.type in ("table_open", "table_close"):
            outside = token.type == "table_close"
        if token.type == "inline" and outside and before.type != "heading_open":
            line = token.map[0] + 1 if token.map else 0
            for sentence in END.split(FORMULA.sub("Formula", _text(token))):
                yield line, sentence


def _text(token: Token) -> str:
    """What a paragraph says, without marks; a piece of code is the word Code."""
    words = {"code_inline": "Code", "softbreak": " ", "hardbreak": " "}
    return "".join(words.get(child.type, child.content) for child in token.children or ())


def too_long(page: str) -> list[tuple[int, str]]:
    """The sentences of more than `MOST` words."""
    return [(line, sentence) for line, sentence in sentences(page) if len(sentence.split()) > MOST]


def main(paths: list[str]) -> int:
    """Print the sentences that are too long. Returns the exit status."""
    found = [(path, *one) for path in paths for one in too_long(Path(path).read_text())]
    for path, line, sentence in found:
        print(f"{path}:{line}: a sentence of {len(sentence.split())} words: {sentence}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
