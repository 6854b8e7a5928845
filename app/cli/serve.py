"""`chemtwin serve` and `chemtwin doctor`."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import click

from app.cli.options import example

if TYPE_CHECKING:
    from app.settings import Settings


@click.command(epilog=example("serve"))
def serve() -> None:
    """Run the service.

    Settings are environment variables CHEMTWIN_... (docs/reference/settings.md).
    """
    import os
    import tempfile
    from contextlib import ExitStack

    from app.cli.port import listen_error
    from app.operations.workers import hold_signals
    from app.settings import keys, read_settings
    from model.errors import InputError

    settings = read_settings()
    if not settings.loopback and not keys(settings.api_keys):
        raise click.ClickException(
            f"refusing to listen on {settings.host} without keys: set CHEMTWIN_API_KEYS, "
            "or leave CHEMTWIN_HOST at 127.0.0.1"
        )
    if problem := listen_error(settings):
        in_use = problem.errno == errno.EADDRINUSE
        reason = "it is in use" if in_use else problem.strerror
        raise InputError(
            f"cannot listen on {settings.host}:{settings.port} ({reason}): set "
            + ("CHEMTWIN_PORT, or stop what runs there" if in_use else "CHEMTWIN_HOST or CHEMTWIN_PORT")
        )
    with ExitStack() as stack:
        if settings.processes > 1:  # before the metrics are imported, which look for the folder
            hold_signals()
            folder = tempfile.TemporaryDirectory(prefix="chemtwin-metrics-")
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(folder)
        _serve(settings)


def _serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, with the settings' processes."""
    import sys
    from contextlib import suppress
    from socket import socket

    import uvicorn
    from uvicorn.config import STARTUP_FAILURE

    from app.application import create_app
    from app.operations import logs
    from app.operations.workers import run_workers
    from index.stores.open_store import open_store
    from model.bundle import load_model

    model = load_model(settings.model)
    open_store(settings.store_address).close()
    logs.configure(settings.log_format, settings.log_level)
    config = uvicorn.Config(
        create_app(settings, model),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=settings.stop_timeout_s,
    )

    def run(sockets: list[socket] | None = None) -> None:
        with suppress(KeyboardInterrupt):  # uvicorn has stopped in good order by then
            uvicorn.Server(config).run(sockets)

    if settings.processes == 1:
        run()
    else:
        model.embed([model.example()])  # compiles what embeds, once for all processes
        sockets = [config.bind_socket()]
        sys.exit(run_workers(settings.processes, lambda: run(sockets), STARTUP_FAILURE))


@click.command(epilog=example("doctor"))
def doctor() -> None:
    """Check settings, model, data folder, store and search.

    Each problem is printed with what to do about it.
    """
    from app.cli.doctor import examine

    failed = False
    for finding in examine():
        click.echo(f"{finding.level:4}  {finding.subject:9} {finding.message}")
        failed = failed or finding.level == "FAIL"
    if failed:
        raise SystemExit(1)
