"""The whole store to a file, and back, while a service runs on it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from index.errors import StoreError
from index.stores.backup_file import read_backup
from index.stores.open_store import open_store
from index.stores.sql_store import Store
from index.stores.sqlite import SqliteStore
from index.stores.star import Star
from model.errors import InputError

Row = tuple[Star, bytes | None]


@dataclass(frozen=True)
class Restored:
    """What a restore did: the store's name, its rows now, and the file with its rows before, if it had any."""

    store: str
    rows: int
    previous: Path | None


def backup(store: Store, path: Path) -> int:
    """Write every row of `store`, as of one moment, to a store file at `path`, whole or not at all.

    Returns how many rows. Raises StoreError, also for a `path` that exists.
    """
    if path.exists():
        raise StoreError(f"{path} exists and is not overwritten")
    partial = path.with_name(path.name + ".partial")
    _remove(partial)
    try:
        copy = SqliteStore(partial)
        try:
            rows = copy.restore(_with_progress(store.dump(), "backup"))
        finally:
            copy.close()
        _sync(partial)
        os.link(partial, path)  # unlike a renaming it fails if there is a file by now
        _sync(path.parent)
    except FileExistsError:
        raise StoreError(f"{path} exists and is not overwritten") from None
    finally:
        _remove(partial)
    return rows


def restore(path: Path, target: str, replace: bool) -> Restored:
    """Make the rows of a backup the content of a store.

    The backup is read to its end first, without a write to it. Then one transaction, during which nothing else
    writes to the store, saves the store's rows to a file, replaces them, and reads the new ones back.

    Parameters
    ----------
    path
        The backup: a store file.
    target
        The store: a path, or a postgresql:// URL. It is made if there is none.
    replace
        Whether rows that the store has may be replaced. They are saved first, beside a store in a file, or in
        the current folder for one in PostgreSQL.

    Raises
    ------
    InputError
        `target` is the backup itself, or a folder.
    StoreError
        The backup cannot be read, the store has rows and `replace` is false, or what was read back is not what
        was written. The store is unchanged.
    """
    _check_target(path, target)
    try:
        for _ in _with_progress(read_backup(path), "check"):
            pass
    except StoreError as error:
        raise StoreError(f"{error}. Nothing was changed.") from error
    store, previous = open_store(target), list[Path]()

    def save() -> None:
        stars = sum(store.stars_by_model().values())
        if not stars:
            return
        if not replace:
            raise StoreError(
                f"{store.name} has {stars} rows: with --replace they are saved to a file and replaced"
            )
        file = _previous(store)
        backup(store, file)
        previous.append(file)

    try:
        rows = store.restore(_with_progress(read_backup(path), "restore"), save)
    finally:
        store.close()
    return Restored(store.name, rows, previous[0] if previous else None)


def _check_target(path: Path, target: str) -> None:
    if "://" in target:
        return
    file = Path(target)
    if file.is_dir():
        raise InputError(f"{target} is a folder: name the store's file, such as {file / 'stars.sqlite'}")
    if file.exists() and file.samefile(path):
        raise InputError(f"{target} is the backup itself")


def _previous(store: Store) -> Path:
    """The path of a new file for the rows that a store has now."""
    end = f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if isinstance(store, SqliteStore):
        return store.path.with_name(f"{store.path.name}.{end}")
    return Path(f"chemtwin-{end}.sqlite")


def _with_progress(rows: Iterable[Row], description: str) -> Iterator[Row]:
    yield from tqdm(rows, unit="row", desc=description, disable=None)


def _sync(path: Path) -> None:
    """Have a file, or a folder's names, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
