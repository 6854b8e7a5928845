"""Print docs/commands.md, the reference of the command line, from the commands themselves.

python docs/commands.py > docs/commands.md
"""

import re
from collections.abc import Iterator
from inspect import cleandoc

import click

from app.cli.main import cli

LINK = re.compile(r"docs/([a-z-]+)\.md")
HEAD = """# Commands

`chemtwin COMMAND --help` says the same. Commands are grouped by subject: `chemtwin catalogue` for the store,
`chemtwin model`, `chemtwin survey`, and `chemtwin lab` for research. This page is what
`python docs/commands.py` prints.

Commands on the store take their settings from the [environment](settings.md); an option wins over it.

An error that you can mend is one line, and the exit status is 1. Any other error is a defect of Chemtwin and
shows its traceback. `chemtwin --debug COMMAND` shows the traceback of every error."""


def leaves(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Full name and command of everything that can be run, sorted."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        full = f"{context.info_name} {name}"
        if isinstance(command, click.Group):
            yield from leaves(command, click.Context(command, info_name=full))
        else:
            yield full, command


def section(name: str, command: click.Command) -> str:
    """Usage, help, options and example of one command."""
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"## {name}", f"```text\n{usage}\n```", LINK.sub(r"[\1](\1.md)", cleandoc(command.help or ""))]
    options = [param for param in command.params if isinstance(param, click.Option)]
    records = [option.get_help_record(context) for option in options]
    rows = [
        "| `{}` | {} |".format(*(text.replace("|", "\\|") for text in record)) for record in records if record
    ]
    if rows:
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    parts.append(re.sub("Example: (.*)", r"Example: `\1`", cleandoc(command.epilog or "").lstrip("\b\n")))
    return "\n\n".join(parts)


def page() -> str:
    """The whole page."""
    root = click.Context(cli, info_name="chemtwin")
    return "\n\n".join([HEAD, *(section(*leaf) for leaf in leaves(cli, root))]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
