"""`chemtwin serve` and `chemtwin doctor`."""

from __future__ import annotations

import errno

import click

from app.cli.options import example


@click.command(epilog=example("serve"))
def serve() -> None:
    """Run the service.

    Settings are environment variables CHEMTWIN_... (docs/reference/settings.md).
    """
    import os
    import tempfile
    from contextlib import ExitStack

    import uvicorn

    from app.cli.port import listen_error
    from app.metrics import FOLDER
    from app.operations import logs
    from app.settings import keys, read_settings
    from index.stores.open_store import open_store
    from model.bundle import load_model
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
    load_model(settings.model)  # an invalid file is one line here, and a traceback in uvicorn
    open_store(settings.store_address).close()
    logs.configure(settings.log_format, settings.log_level)
    with ExitStack() as stack:
        if settings.workers > 1:
            folder = tempfile.TemporaryDirectory(prefix="chemtwin-metrics-")
            os.environ[FOLDER] = stack.enter_context(folder)
        uvicorn.run(
            "app.application:create_app",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=settings.stop_timeout_s,
        )


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
