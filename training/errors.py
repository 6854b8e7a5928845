"""The error of every training and evaluation command."""

from __future__ import annotations

from collections.abc import Sequence

from model.errors import ChemtwinError


class TrainingError(ChemtwinError, ValueError):
    """A survey, a pairs file, a configuration or a model that a training command cannot use.

    Parameters
    ----------
    message
        What is wrong, with numbers, and what to do about it.
    detail
        One line for each problem.
    """

    def __init__(self, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__("training", message, detail)
