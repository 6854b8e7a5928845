"""`chemtwin serve` and `chemtwin doctor`."""

from __future__ import annotations

from typing import Any

import click

from app.cli.options import example

IMPORTED = (
    "app.application",
    "model.methods.gaussdis",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)
"""What every process that serves imports. Forks of one process that has, they start in a third of the time."""


@click.command(epilog=example("serve"))
def serve() -> None:
    """Run the service.

    Settings are environment variables CHEMTWIN_... (docs/reference/settings.md).
    """
    import os
    import tempfile

    import uvicorn
    import uvicorn._subprocess
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    from app.bulk import processes
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
    options: dict[str, Any] = {
        "app": "app.application:create_app",
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "workers": settings.processes,
        "access_log": False,
        "log_config": None,
        "timeout_graceful_shutdown": settings.stop_timeout_s,
    }
    if settings.processes == 1:
        uvicorn.run(**options)
        return
    config = uvicorn.Config(**options)
    listening = config.bind_socket()
    with tempfile.TemporaryDirectory(prefix="chemtwin-metrics-") as folder:
        os.environ[FOLDER] = folder
        processes.get_ready(*IMPORTED)
        uvicorn._subprocess.spawn = processes.CONTEXT  # type: ignore[assignment]
        several = Multiprocess(config, [listening])
        several.run()
    if any(process.exitcode == STARTUP_FAILURE for process in several.processes):
        raise SystemExit(STARTUP_FAILURE)


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
