"""The command line: see `chemtwin --help`. Each command imports what it needs when it runs."""

from __future__ import annotations

import sys

import click

from app.cli import catalogue, lab, model, plot, serve, survey, twins
from app.cli.options import example


@click.group(
    context_settings={"max_content_width": 110},
    epilog=example("twins apStar-r5-2M00004994+1621552.fits --teff 4705 --logg 2.58 --fe-h 0.05"),
)
@click.option("--debug", is_flag=True, help="show the traceback of every error")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Find the chemical twins of a star straight from its spectrum."""
    context.ensure_object(dict)["debug"] = debug


for command in (
    serve.serve,
    serve.doctor,
    twins.twins,
    plot.plot,
    catalogue.catalogue,
    model.model,
    survey.survey,
    lab.lab,
):
    cli.add_command(command)


def main() -> None:
    """Entry point; `app.cli.errors` says what is printed of an error."""
    options: dict[str, bool] = {}
    try:
        cli(obj=options)
    except Exception as error:
        from app.cli.errors import report

        report(error, options.get("debug", False))
        sys.exit(1)
