"""Bulk embedding by the workers of a dask cluster.

The workers read the files themselves, so these must have the same path on all machines, and write to the store
too. A block whose worker is killed is done again by another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from distributed import Client, KilledWorker, as_completed

from app.bulk.ingest_block import Block, Report, ingest_block
from app.bulk.readers.star_reader import InputFiles
from app.settings import Settings
from index.errors import StoreError
from model.errors import InputError

LOCAL = ("127.0.0.1", "localhost", "::1")


def reports_of_cluster(
    scheduler: str, settings: Settings, files: InputFiles, blocks: Sequence[Block]
) -> Iterator[Report]:
    """The report of each block. Raises InputError for a store that the cluster cannot write to."""
    if "://" not in settings.store_address and urlsplit(scheduler).hostname not in LOCAL:
        raise InputError(
            f"{settings.store_address} is a file of this machine, and the workers of {scheduler} may be on "
            "others: set CHEMTWIN_STORE to a postgresql:// URL"
        )
    with Client(scheduler) as client:
        futures = [
            client.submit(
                ingest_block, settings, files, block, pure=False, key=f"ingest-{files.path}-{block.rows.start}"
            )
            for block in blocks
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
                future.release()
        except KilledWorker as error:
            raise StoreError(
                "workers were killed at this input; run the same command again to go on"
            ) from error
