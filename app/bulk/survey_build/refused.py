"""Why a spectrum or a row of the table is not in a survey that was built."""

from __future__ import annotations

REASONS = {
    "unreadable": "the file is damaged, or has no spectrum at rest",
    "survey": "the file is a survey that was built before",
    "no_row": "the table of labels has no row of the star",
    "another_star": "the file is of another star than its row",
    "labels": "a label is unknown or impossible",
    "flags": "the archive flags the star",
    "spectrum": "the spectrum cannot be used",
    "no_errors": "the pixels have no errors",
    "snr": "the S/N is too low",
    "identical": "the spectrum is identical to another one",
    "duplicate": "another spectrum of the same star has a higher S/N, or an equal one",
    "outlier": "a label is far from all other stars'",
    "no_file": "the row has no spectrum in the folder",
    "repeated_row": "the row repeats the star of another row",
}
"""By code, in the order of the report."""


class RefusedSpectrum(Exception):
    """A spectrum that cannot be in the survey.

    Parameters
    ----------
    reason
        A key of `REASONS`.
    text
        What exactly is wrong.
    star_id
        The star, "" where it is not known.
    row
        The star's row of the table of labels, -1 for none.
    """

    def __init__(self, reason: str, text: str, star_id: str = "", row: int = -1) -> None:
        super().__init__(text)
        self.reason, self.text, self.star_id, self.row = reason, text, star_id, row
