"""`chemtwin serve` and `chemtwin doctor`."""

from __future__ import annotations

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

    from app.metrics import FOLDER
    from app.operations import logs
    from app.settings import keys, read_settings
    from index.stores.open_store import open_store

    settings = read_settings()
    if not settings.loopback and not keys(settings.api_keys):
        raise click.ClickException(
            f"refusing to listen on {settings.host} without keys: set CHEMTWIN_API_KEYS, "
            "or leave CHEMTWIN_HOST at 127.0.0.1"
        )
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
