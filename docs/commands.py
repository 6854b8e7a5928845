"""Print docs/reference/commands.md, the reference of the command line, from the commands themselves.

python docs/commands.py > docs/reference/commands.md
"""

import os.path
import re
from collections.abc import Iterator
from inspect import cleandoc

import click

from app.cli.main import cli

LINK = re.compile(r"\b((?:docs|research)/(?:[a-z-]+/)?([a-z-]+)\.md)")
HEAD = """# Commands

`chemtwin COMMAND --help` says the same. `python docs/commands.py` prints this page.

Commands on the store take their settings from the [environment](settings.md); an option wins over it.
An error that you can mend is one line, and the exit status is 1. Any other error is a defect of Chemtwin and
shows its traceback. `chemtwin --debug COMMAND` shows the traceback of every error."""


def rows(group: click.Group, context: click.Context) -> Iterator[str]:
    """One row of a table for everything in the group that can be run, sorted."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        full = f"{context.info_name} {name}"
        if isinstance(command, click.Group):
            yield from rows(command, click.Context(command, info_name=full))
        else:
            yield row(full, command)


def row(name: str, command: click.Command) -> str:
    """Usage, help, example and options of one command, as one row."""
    context = click.Context(command, info_name=name)
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    said = re.sub(r"(--[a-z][a-z-]*)", r"`\1`", " ".join(cleandoc(command.help or "").split()))
    example = re.sub("Example: (.*)", r"Example: `\1`", cleandoc(command.epilog or "").lstrip("\b\n"))
    records = [param.get_help_record(context) for param in command.params if isinstance(param, click.Option)]
    lines = [LINK.sub(_link, said), *(f"`{record[0]}`: {record[1]}" for record in records if record), example]
    return f"| `{' '.join([name, *pieces])}` | {'<br>'.join(lines).replace('|', chr(92) + '|')} |"


def _link(found: re.Match[str]) -> str:
    return f"[{found[2]}]({os.path.relpath(found[1], 'docs/reference')})"


def page() -> str:
    """The whole page."""
    head = "| command | what it does, its options, an example |\n|---|---|"
    return "\n\n".join([HEAD, "\n".join([head, *rows(cli, click.Context(cli, info_name="chemtwin"))])]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
