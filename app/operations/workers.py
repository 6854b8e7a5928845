"""Several processes that serve: forks of one that has imported everything and loaded the model."""

from __future__ import annotations

import gc
import logging
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkProcess

from app.operations.processes import end_with_parent

STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

PAUSE_S = 1.0
"""Seconds before another takes the place of a process that ended by itself: it may end at once, too."""

log = logging.getLogger("chemtwin")


def hold_signals() -> None:
    """Let signals wait for `run_workers`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPS, signal.SIGCHLD})


def run_workers(number: int, serve: Callable[[], None], fatal: int) -> int:
    """Run `serve` in so many processes until SIGTERM, SIGINT or SIGHUP.

    Another takes the place of one that ends by itself. They end when this process does, however it ends.

    Parameters
    ----------
    number
        How many.
    serve
        What each runs. It returns after SIGTERM or SIGINT.
    fatal
        The exit status of a process that cannot start: if it is one of the first, all others end, too.

    Returns
    -------
    int
        The exit status of this process: `fatal`, or 0.
    """
    gc.freeze()  # a collection would copy the pages that the processes share
    hold_signals()
    running = first = [_start(serve) for _ in range(number)]
    try:
        while signal.sigwait({*STOPS, signal.SIGCHLD}) == signal.SIGCHLD:
            ended = [process for process in running if not process.is_alive()]
            for process in ended:
                log.error("process %s ended with status %s", process.pid, process.exitcode)
            if any(process.exitcode == fatal for process in ended if process in first):
                return fatal
            running = [process for process in running if process not in ended]
            if ended:
                time.sleep(PAUSE_S)
                running = running + [_start(serve) for _ in ended]
        return 0
    finally:
        for process in running:
            process.terminate()  # nothing to one that has ended
        for process in running:
            process.join()


def _start(serve: Callable[[], None]) -> ForkProcess:
    def run() -> None:
        end_with_parent()
        # a terminal sends SIGHUP to all: it stays held, for the first process sends SIGTERM then
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
        serve()

    process = get_context("fork").Process(target=run)
    process.start()
    return process
