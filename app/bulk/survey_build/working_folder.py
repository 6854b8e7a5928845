"""The folder in which a build stores the blocks that it has read, until the survey is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from app.bulk.survey_build.inputs import PLAN, WORKING
from app.bulk.survey_build.stored_block import BuildOptions
from model.bundle import load_card
from model.errors import InputError

FORMAT = 3
"""Grows with every change of what a stored block has."""


def working_folder(out: Path) -> Path:
    """Beside the survey to be written."""
    return out.with_name(out.name + WORKING)


def get_ready(options: BuildOptions, files: Sequence[str]) -> bool:
    """Make the working folder, or find that of a build that was stopped; returns whether it goes on.

    Blocks of other files or options are deleted. Raises InputError where the folder is no build's.
    """
    plan = json.dumps({"digest": _digest(options, files)})
    path = options.work / PLAN
    if path.is_file() and path.read_text() == plan:
        return True
    if options.work.exists():
        if not path.is_file():
            raise InputError(f"{options.work} exists and is no working folder of a build: move it elsewhere")
        shutil.rmtree(options.work)
    options.work.mkdir(parents=True)
    path.write_text(plan)
    return False


def _digest(options: BuildOptions, files: Sequence[str]) -> str:
    """A digest of all that the blocks depend on: files by name, size and time, labels, and options."""
    digest = hashlib.sha256()
    chosen = (FORMAT, options.flags, options.min_snr, options.settings.bad_bits)
    digest.update(repr((chosen, load_card(options.settings.model).identity)).encode())
    paths = [options.folder / name for name in files]
    for path in [*paths, *([] if options.labels is None else [options.labels])]:
        stat = path.stat()
        digest.update(f"{path}\n{stat.st_size}\n{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
