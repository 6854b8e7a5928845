"""The store at a path or a URL."""

from __future__ import annotations

from pathlib import Path

from index.errors import StoreError
from index.stores.sql_store import Store
from index.stores.sqlite import SqliteStore


def open_store(address: str, create: bool = True) -> Store:
    """The store at a path, or at a postgresql:// URL. Raises StoreError.

    Without `create` a file has to be there; a database gets its tables in any case.
    """
    if "://" not in address:
        if not create and not Path(address).exists():
            raise StoreError(
                f"there is no store {address}: `make serve` or `chemtwin catalogue ingest` makes one, "
                "and --data-dir or CHEMTWIN_DATA_DIR names another"
            )
        return SqliteStore(Path(address))
    if not address.startswith(("postgresql://", "postgres://")):
        raise StoreError(f"{address.partition('://')[0]}:// is no store: give a path, or a postgresql:// URL")
    try:
        from index.stores.postgres import PostgresStore
    except ImportError as error:
        raise StoreError(
            "a postgresql:// store needs psycopg: pip install 'chemtwin[postgres]' brings it"
        ) from error
    return PostgresStore(address)
