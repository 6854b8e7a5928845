"""What the command line prints of an error: one line of what the user can mend, the traceback of a defect.

An error is a message for the user if its class says so: `ChemtwinError` (`InputError` for files, options and
settings), `ServiceError`, `StoreError`, `OSError`, and `ModuleNotFoundError` of another's package. Everything
else is a defect. Its traceback is printed at once, because the command may have run for hours.
`chemtwin --debug` prints the traceback of every error.
"""

from __future__ import annotations

import traceback

import click

from app.errors import ServiceError
from index.errors import StoreError
from model.errors import ChemtwinError

OWN = ("app", "index", "model", "training")
DEFECT = "this is a defect of Chemtwin: please report it with the traceback above"


def report(error: Exception, debug: bool) -> None:
    """Print an error on stderr: its message, or its traceback if it is a defect, or both for `debug`."""
    message = message_of(error)
    if debug or message is None:
        traceback.print_exception(error)
    click.echo(f"chemtwin: {DEFECT if message is None else message}", err=True)


def message_of(error: Exception) -> str | None:
    """What to tell the user of an error; None if it is a defect."""
    if isinstance(error, ModuleNotFoundError) and _package(error.name or "") not in OWN:
        return f"{error.name} is not installed; pip install 'chemtwin[train,bulk]' brings it"
    if isinstance(error, (ChemtwinError, ServiceError)):
        return "\n  ".join([error.message, *(line for line in error.detail if line != error.message)])
    if isinstance(error, (StoreError, OSError)):
        return str(error)
    return None


def _package(module: str) -> str:
    return module.partition(".")[0]
