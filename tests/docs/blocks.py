"""The code blocks of a page, and a way to run them all as one reader would, one after another."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from markdown_it import MarkdownIt
from markdown_it.token import Token

from app.cli.main import cli
from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
    *sorted((ROOT / "research").glob("*.md")),
]
PAGE = {page.name: page for page in PAGES}
"""Every page by the name of its file, which no two share."""
assert len(PAGE) == len(PAGES)

RUNNABLE = ("bash", "python")
BEFORE = re.compile(r"[();<>|&]+|\w+=.*|\$|--no-python")
"""What may stand before a command: a separator, a variable, a prompt, torchrun's last option."""
COMMAND = re.compile(r"(/[\w/]+/)?chemtwin")

HOME = "/srv/chemtwin"
"""The working folder in the outputs that pages show."""

PRELUDE = """
set -euo pipefail
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; wait' EXIT
chemtwin() {
    if [ "$1" != serve ]; then command chemtwin "$@"; return; fi
    command chemtwin serve >> serve.log 2>&1 &
    local server=$!
    servers+=("$server")
    until curl -fs "localhost:$CHEMTWIN_PORT/readyz" > ready.json; do
        kill -0 "$server" || { cat serve.log >&2; return 1; }
        sleep 0.1
    done
}
curl() { command curl --fail "$@"; }
make() { [ "$*" = serve ] && chemtwin serve; }
"""
"""`chemtwin serve` returns when the service is ready, instead of never; `make serve` has its catalogue already;
a refused request is an error."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it starts on, and the `text` block right below, if any."""

    language: str
    text: str
    line: int
    output: str | None

    @property
    def name(self) -> str:
        """The first line: what the lists of tests call it."""
        return self.text.partition("\n")[0]


def tokens(page: Path) -> list[Token]:
    """The page as markdown-it parses it."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(page: Path) -> list[Block]:
    """All fenced blocks, in order."""
    parsed = tokens(page)
    found = []
    for token, following in zip(parsed, [*parsed[1:], None], strict=True):
        if token.type == "fence":
            shown = following is not None and following.type == "fence" and following.info == "text"
            assert token.map is not None
            output = following.content if shown and following is not None else None
            found.append(Block(token.info, token.content, token.map[0] + 1, output))
    return found


def run(
    chosen: Sequence[Block], folder: Path, ports: dict[str, int], smaller: dict[str, str], programs: Path
) -> list[tuple[Block, str]]:
    """Run blocks as one script in `folder`.

    Parameters
    ----------
    chosen
        The blocks, of bash and python.
    folder
        The working folder of the script.
    ports, smaller
        What is replaced in the blocks, and by what.
    programs
        The folder of the reader's `chemtwin`.

    Returns
    -------
    list of (block, printed)
        The blocks with an output in their page, and what they printed: with the page's ports, and with `HOME`
        for `folder`.

    Raises
    ------
    AssertionError
        A command failed.
    """
    parts = [PRELUDE]
    for number, block in enumerate(chosen):
        text = block.text
        for old, new in smaller.items():
            text = text.replace(old, new)
        for old, port in ports.items():
            text = text.replace(old, str(port))
        if block.language == "python":
            (folder / f"{number}.py").write_text(text)
            text = f"python -W error {number}.py\n"
        parts += [f"echo '--- line {block.line}' >&2", f"{{\n{text}}} > {number}.out"]
    environment = os.environ | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CHEMTWIN_PORT": str(ports["8000"]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(parts)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shown = []
    for number, block in enumerate(chosen):
        if block.output is not None:
            printed = (folder / f"{number}.out").read_text().replace(str(folder), HOME)
            for old, port in ports.items():
                printed = printed.replace(f":{port}", f":{old}")
            shown.append((block, printed))
    return shown


def commands(text: str) -> list[list[str]]:
    """The words of each call of `chemtwin` in shell text, from its name on, up to the next command."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words = list(lexer)
        for index, word in enumerate(words):
            if " " in word:
                found += commands(word)
            if COMMAND.fullmatch(word) and (index == 0 or BEFORE.fullmatch(words[index - 1])):
                rest = words[index:]
                ends = [i for i, other in enumerate(rest) if set(other) <= set("();<>|&")]
                found.append(rest[: ends[0]] if ends else rest)
    return found


def check(words: list[str]) -> None:
    """That the words call a command that exists with options that it has."""
    command: click.Command = cli
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None or rest[0] in ("...", "COMMAND"), f"there is no {' '.join(words)}"
        if found is None:
            return
        command, rest = found, rest[1:]
    options = {option for param in command.params for option in param.opts} | {"--help"}
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, f"{word} in {' '.join(words)}"
