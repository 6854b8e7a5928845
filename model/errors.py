"""The errors that a user's input can cause: every other exception is a defect.

ChemtwinError(code, message, detail)
├── SpectrumError     a spectrum that cannot be used (lengths, masks, wavelengths, values)
├── ParameterError    missing or impossible stellar parameters
├── FormatError       a file or body that is not of its stated format
├── ModelFileError    a model or emulator file that cannot be read
└── InputError        a file, option or setting that cannot be used; also a ValueError
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ChemtwinError(Exception):
    """An error that a user's input caused.

    Parameters
    ----------
    code : str
        A stable word for programs.
    message : str
        What is wrong and what to do.
    detail : sequence of str
        The problems one by one; the first 10 are stored.
    """

    def __init__(self, code: str, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = list(detail)[:10]

    def __reduce__(self) -> tuple[Any, ...]:
        """Let pickle carry an error from a worker process to the one that started it."""
        return _rebuilt, (type(self), self.code, self.message, self.detail)


def _rebuilt(kind: type[ChemtwinError], code: str, message: str, detail: list[str]) -> ChemtwinError:
    error = kind.__new__(kind, message)
    ChemtwinError.__init__(error, code, message, detail)
    return error


class SpectrumError(ChemtwinError):
    """The spectrum cannot be used."""


class ParameterError(ChemtwinError):
    """The stellar parameters are missing or impossible."""


class FormatError(ChemtwinError):
    """The file or body is not of its stated format."""


class ModelFileError(ChemtwinError):
    """The model file cannot be read."""


class InputError(ChemtwinError, ValueError):
    """A file, option or setting that cannot be used; the message says which, why and what to do.

    The command line prints it as one line.
    """

    def __init__(self, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__("invalid_input", message, detail)
