"""What goes wrong with a store."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be opened, read or written; the message says which and why.

    `reason` is the why alone, without the store's name: anyone may read it. `damaged`: the file is not sound.
    """

    def __init__(self, message: str, reason: str = "", damaged: bool = False) -> None:
        super().__init__(message)
        self.reason, self.damaged = reason, damaged
