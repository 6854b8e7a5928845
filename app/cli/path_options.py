"""Files that a command reads and writes; it writes to none that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click


class FilePath(click.Path):
    """A file of a command line, read or, with `output`, written. One file cannot be both."""

    def __init__(self, *, output: bool = False) -> None:
        super().__init__(exists=not output, dir_okay=False, path_type=Path)
        self.output = output

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Fails for one that the command both reads and writes."""
        path = Path(str(super().convert(value, param, ctx)))
        for name, other in _others(ctx, self.output):
            if path.resolve() == other.resolve():
                self.fail(f"{path} is {name} too: a command does not write over what it reads", param, ctx)
        return path


def _others(ctx: click.Context | None, output: bool) -> Iterator[tuple[str, Path]]:
    """The paths on the other side that the command has been given so far, and what they are."""
    for param in ctx.command.params if ctx is not None else ():
        if isinstance(param.type, FilePath) and param.type.output != output:
            given = ctx.params.get(param.name or "") if ctx is not None else None
            for path in given if isinstance(given, tuple) else (given,):
                if isinstance(path, Path):
                    yield param.human_readable_name, path


FILE, OUT = FilePath(), FilePath(output=True)
