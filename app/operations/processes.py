"""Worker processes, forked from a process that has imported what they need and done nothing else."""

from __future__ import annotations

import os
import threading
from multiprocessing import connection, forkserver, get_context, parent_process

CONTEXT = get_context("forkserver")


def get_ready(*modules: str) -> None:
    """Begin to import `modules`, for all workers at once, while this process goes on."""
    CONTEXT.set_forkserver_preload(list(modules))
    forkserver.ensure_running()


def end_with_parent() -> None:
    """In a worker: end when the process that asked for it does, however that ends."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
