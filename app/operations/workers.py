"""Several processes that serve: forks of one that has imported everything and loaded the model."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess

from app.bulk.processes import end_with_parent

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}

PAUSE_S = 1.0
"""Seconds before another takes the place of a process that ended by itself: it may end at once, too."""

log = logging.getLogger("chemtwin")


def run_workers(number: int, serve: Callable[[], None], fatal: int) -> int:
    """Run `serve` in so many processes until SIGTERM or SIGINT, which they get too.

    Another takes the place of one that ends by itself. They end when this process does, however it ends.

    Parameters
    ----------
    number
        How many.
    serve
        What each runs. It returns after SIGTERM or SIGINT.
    fatal
        The exit status of a process that cannot start: all others end then, too.

    Returns
    -------
    int
        The exit status of this process: `fatal`, or 0.
    """
    gc.freeze()  # a collection would copy the pages that the processes share
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    running = [_start(serve) for _ in range(number)]
    status = 0
    while (received := signal.sigwait(SIGNALS)) == signal.SIGCHLD:
        ended = [process for process in running if not process.is_alive()]
        for process in ended:
            log.error("process %s ended with status %s", process.pid, process.exitcode)
            running.remove(process)
        if any(process.exitcode == fatal for process in ended):
            status, received = fatal, signal.SIGTERM
            break
        if ended:
            time.sleep(PAUSE_S)
            running += [_start(serve) for _ in ended]
    for process in running:
        assert process.pid is not None
        os.kill(process.pid, received)
    for process in running:
        process.join()
    return status


def _start(serve: Callable[[], None]) -> ForkProcess:
    def run() -> None:
        end_with_parent()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        serve()

    process = get_context("fork").Process(target=run)
    process.start()
    return process
