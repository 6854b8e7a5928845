"""The whole store to a file, and back, while a service runs on it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from index.sqlite import SqliteStore
from index.store import Star, Store, StoreError

Row = tuple[Star, bytes | None]


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
            rows = copy.restore(_shown(store.dump(), "backup"))
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


def restore(store: Store, path: Path) -> int:
    """Put the rows of the store file at `path` in the place of all of `store`'s, in one transaction.

    Returns how many. Raises StoreError for a file that cannot be read to its end: nothing has changed then.
    """
    held = SqliteStore(path)
    try:
        return store.restore(_shown(held.dump(), "restore"))
    except ValueError as error:
        raise StoreError(f"{path} holds a row that is none: {error}. Nothing was changed.") from error
    finally:
        held.close()


def _shown(rows: Iterable[Row], description: str) -> Iterator[Row]:
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
