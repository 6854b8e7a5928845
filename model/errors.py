"""What can be wrong with data handed to a model.

ChemtwinError(code, message, detail)
├── SpectrumError     a spectrum that cannot be used (lengths, masks, wavelengths, values)
├── ParameterError    missing or impossible stellar parameters
├── FormatError       a file or body that is not what it claims to be
└── ModelFileError    a model or emulator file that cannot be read
"""

from __future__ import annotations

from collections.abc import Sequence


class ChemtwinError(Exception):
    """A refusal with a stable `code`, a `message` saying what to do, and at most 10 `detail` lines."""

    def __init__(self, code: str, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = list(detail)[:10]


class SpectrumError(ChemtwinError):
    """The spectrum cannot be used."""


class ParameterError(ChemtwinError):
    """The stellar parameters are missing or impossible."""


class FormatError(ChemtwinError):
    """The file or body is not of the form it claims."""


class ModelFileError(ChemtwinError):
    """The model file cannot be read."""
