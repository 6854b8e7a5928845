"""Stars with few latents, and what several tests do with them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence

import numpy as np

from index.stores.sql_store import Written
from index.stores.star import Star

DIMENSION = 3


def star(
    star_id: str, latent: Sequence[float] = (0, 0, 0), teff: float = 4500.0, model: str = "m@1", **fields
) -> Star:
    return Star(star_id, model, np.array(latent, dtype=np.float32), None, teff, 2.0, 0.0, **fields)


def same(first: Star, second: Star) -> bool:
    return all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name))
        for field in dataclasses.fields(Star)
    )


def replaced(written: Sequence[Written]) -> list[bool]:
    """Which of the stars that were written replaced another."""
    return [one.replaced for one in written]


def in_threads(*acts: Callable[[], None]) -> None:
    """Run all at once; the first error is raised here."""
    errors: list[BaseException] = []

    def run(act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
