"""What several commands share: files that they read or write, the store, the example in their help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
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
        for name, other in _opposite_paths(ctx, self.output):
            if path.resolve() == other.resolve():
                self.fail(f"{path} is {name} too: a command does not write over what it reads", param, ctx)
        return path


def _opposite_paths(ctx: click.Context | None, output: bool) -> Iterator[tuple[str, Path]]:
    """The names and paths given so far of files that are written, where this one is read, or the reverse."""
    for param in ctx.command.params if ctx is not None else ():
        if isinstance(param.type, FilePath) and param.type.output != output:
            given = ctx.params.get(param.name or "") if ctx is not None else None
            for path in given if isinstance(given, tuple) else (given,):
                if isinstance(path, Path):
                    yield param.human_readable_name, path


FILE, OUT = FilePath(), FilePath(output=True)
FOLDER = click.Path(file_okay=False, path_type=Path)

MODELS = click.argument("models", type=FILE, nargs=-1, required=True, metavar="MODEL...")
MODEL_OUT = click.option("--out", type=OUT, required=True, help="the model file to write")
NAME = click.option("--name", default="gaussdis", show_default=True, help="the model's name")
REPORT = click.option("--report", type=FOLDER, required=True, help="folder of the report")
PRESET = click.option(
    "--preset",
    type=click.Choice(["compact", "full", "paper", "paper-fast"]),
    default="compact",
    show_default=True,
    help="the network's configuration",
)
CHANGES = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="change one key, e.g. --set kl=0.5; repeatable"
)
DEVICE = click.option("--device", default=None, help="cuda or cpu; the best there is by default")


def example(line: str) -> str:
    """The last line of a command's help; click does not wrap it."""
    return f"\b\nExample: chemtwin {line}"


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name a store; it gets `settings`, in which they win over variables."""

    @click.option(
        "--data-dir",
        type=FOLDER,
        help="folder of the store, instead of CHEMTWIN_DATA_DIR and CHEMTWIN_STORE",
    )
    @click.option("--store", metavar="PATH_OR_URL", help="the store itself, instead of both")
    @wraps(command)
    def with_settings(data_dir: Path | None, store: str | None, **options: Any) -> None:
        from app.settings import read_settings

        if data_dir is not None and store is not None:
            raise click.UsageError("--data-dir and --store both name a store: give one")
        if store == "":
            raise click.UsageError("--store is empty")
        command(settings=read_settings(data_dir, store), **options)

    return with_settings
