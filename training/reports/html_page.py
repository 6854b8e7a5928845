"""Reports as one self-contained HTML file each: Markdown, with every picture and the style inside."""

from __future__ import annotations

import base64
import html
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from training.reports.markdown import table

PACKAGES = ("chemtwin", "numpy", "scipy", "torch", "matplotlib")
STYLE = Path(__file__).with_name("page.css").read_text()


def publish(folder: Path, name: str, markdown: str) -> None:
    """Write `markdown`, whose pictures are PNG files in `folder`, to `folder`/`name`.md and .html.

    The page ends with its provenance, which the Markdown leaves out: it is the same whenever it is written.
    """
    (folder / f"{name}.md").write_text(markdown + "\n")
    (folder / f"{name}.html").write_text(
        page(f"{markdown}\n\n{provenance()}", lambda n: (folder / n).read_bytes())
    )


def provenance() -> str:
    """The command, versions and time of a page, as a section of Markdown; of absolute paths the last part."""
    command = shlex.join([Path(given).name if Path(given).is_absolute() else given for given in sys.argv])
    rows = [
        ["written", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"],
        ["command", f"`{command}`".replace("|", "\\|")],
        ["Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"],
        *([package, version(package)] for package in PACKAGES),
    ]
    return f"## Provenance\n\n{table(['', ''], rows)}"


def page(markdown: str, picture: Callable[[str], bytes]) -> str:
    """An HTML document of `markdown` that asks for nothing else: no script, no font, no file.

    Its title is the first heading; `picture` gives the PNG of each image's name.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    headings = [
        (opened, inline.content) for opened, inline in pairwise(tokens) if opened.type == "heading_open"
    ]
    for number, (opened, _) in enumerate(headings):
        opened.attrs["id"] = f"section-{number}"
    for token in _images(tokens):
        content = base64.b64encode(picture(str(token.attrs["src"]))).decode()
        token.attrs["src"] = f"data:image/png;base64,{content}"
    parser.add_render_rule("image", _figure)
    parser.add_render_rule("table_open", _table_opened)
    parser.add_render_rule("table_close", _table_closed)
    contents = "\n".join(
        f'<li class="{opened.tag}"><a href="#{opened.attrs["id"]}">{html.escape(text)}</a></li>'
        for opened, text in headings[1:]
    )
    title = html.escape(headings[0][1])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{STYLE}</style>
</head>
<body>
<nav aria-label="Contents"><ul>
{contents}
</ul></nav>
<main>
{parser.renderer.render(tokens, parser.options, {})}</main>
</body>
</html>
"""


def _images(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                yield child


def _figure(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    caption = html.escape(token.content)
    return f'<img src="{token.attrs["src"]}" alt="{caption}"><span class="caption">{caption}</span>'


def _table_opened(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return '<div class="table" tabindex="0"><table>\n'


def _table_closed(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return "</table></div>\n"
