"""A survey file from a folder of spectra, in two steps: read the spectra block by block, then merge the blocks.

A block is stored as soon as it is read, so a build that was stopped goes on. Which spectra are in the survey is
decided when all are read; so the survey is the same however often its build was stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from app.bulk.readers.star_files import without_ending
from app.bulk.survey_build.inputs import Block, blocks_of, find_files
from app.bulk.survey_build.merge import Membership, Selection, Spectra, fluxes, members, select, warnings
from app.bulk.survey_build.messages import not_used
from app.bulk.survey_build.outcomes import Outcomes, write_outcomes
from app.bulk.survey_build.refused import REASONS
from app.bulk.survey_build.star_labels import StarLabels, key
from app.bulk.survey_build.stored_block import LABEL_COLUMNS, BuildOptions, opened, read_block
from app.bulk.survey_build.working_folder import get_ready
from app.operations import processes
from model.bundle import load_model
from model.errors import InputError
from training.observed.build_report import BuiltSurvey, write_report
from training.observed.observed_survey import write_observed_survey
from training.surveys.groups import bad_groups, read_groups


def build(options: BuildOptions, out: Path, groups: Path | None, report: Path, workers: int) -> BuiltSurvey:
    """Build a survey.

    Parameters
    ----------
    options
        What to read, and how.
    out
        The survey to write.
    groups
        The CSV of stars that share their chemistry.
    report
        The folder of the report.
    workers
        How many processes read. A single one is this process itself.

    Raises
    ------
    InputError
        The files cannot be used, or there is no star for a survey; then the report says why.
    """
    without = {out, options.work, report, *([] if options.labels is None else [options.labels])}
    files = find_files(options.folder, without)
    if not files:
        raise InputError(f"{options.folder} has no FITS, npz or HDF5 file")
    if options.labels is None and any(without_ending(name) is not None for name in files):
        raise InputError(f"{options.folder} has FITS files: --labels must name the table of their stars")
    named = None if groups is None else read_groups(groups, key)
    labels = None if options.labels is None else StarLabels(options.labels, options.flags)
    blocks = blocks_of(options.folder, files)
    get_ready(options, files)
    _read(options, blocks, workers)
    paths = [options.path(block) for block in blocks]
    spectra = Spectra.load(paths)
    selection = select(spectra)
    membership = members(spectra, selection, named)
    outcomes = write_outcomes(report, paths, spectra, selection, labels)
    built = _built(options, out, labels, spectra, selection, membership, outcomes)
    page = write_report(report, built)
    if built.stars:
        _write(out, options, paths, spectra, selection, membership, built)
    shutil.rmtree(options.work)
    if not built.stars:
        reasons = "".join(f"\n{line}" for line in not_used(built))
        raise InputError(f"no star of {options.folder} can be in a survey:{reasons}\nreport: {page}")
    return built


def _read(options: BuildOptions, blocks: Sequence[Block], workers: int) -> None:
    """Read and store the blocks that are not stored yet, behind a progress bar."""
    stored = [block for block in blocks if options.path(block).exists()]
    waiting = [block for block in blocks if not options.path(block).exists()]
    total, done = sum(map(len, blocks)), sum(map(len, stored))
    with tqdm(total=total, initial=done, unit="spectrum", desc="read", disable=None, smoothing=0.05) as bar:
        for count in _counts(options, waiting, min(workers, len(waiting))):
            bar.update(count)


def _counts(options: BuildOptions, blocks: Sequence[Block], workers: int) -> Iterator[int]:
    """The number of spectra of each block, as it is read."""
    if workers <= 1:
        try:
            yield from (read_block(options, block) for block in blocks)
        finally:
            opened.cache_clear()
        return
    processes.get_ready("app.bulk.survey_build.stored_block", "model.methods.gaussdis", "astropy.io.fits")
    with ProcessPoolExecutor(workers, processes.CONTEXT, processes.end_with_parent) as pool:
        try:
            for future in as_completed([pool.submit(read_block, options, block) for block in blocks]):
                yield future.result()
        except BrokenProcessPool as error:
            raise InputError("a worker process was killed; run the same command again to go on") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _built(
    options: BuildOptions,
    out: Path,
    labels: StarLabels | None,
    spectra: Spectra,
    selection: Selection,
    membership: Membership,
    outcomes: Outcomes,
) -> BuiltSurvey:
    chosen = selection.chosen
    numbers = {name: values[chosen] for name, values in spectra.numbers.items()}
    star_ids = [one.decode() for one in spectra.star_id[chosen].tolist()]
    return BuiltSurvey(
        survey=out,
        folder=options.folder,
        labels=options.labels,
        metals="" if labels is None else labels.metals,
        flags={} if labels is None else labels.flags.used,
        min_snr=options.min_snr,
        spectra=len(spectra.row),
        star_ids=star_ids,
        numbers=numbers,
        reasons=REASONS,
        outcomes=outcomes.counts,
        first=outcomes.first,
        group=membership.group,
        names=membership.names,
        small=membership.small,
        missing=membership.missing,
        bad=bad_groups(numbers["fe_h"], numbers["fe_h_err"], membership.group),
    )


def _write(
    out: Path,
    options: BuildOptions,
    paths: Sequence[Path],
    spectra: Spectra,
    selection: Selection,
    membership: Membership,
    built: BuiltSurvey,
) -> None:
    """Write the survey's file, behind a progress bar."""
    model, chosen = load_model(options.settings.model), selection.chosen
    columns: dict[str, NDArray[np.generic]] = {
        name: built.numbers[name] for name in (*LABEL_COLUMNS, "snr", "ra", "dec")
    }
    texts = {
        "star_id": built.star_ids,
        "provenance": [one.decode() for one in spectra.name[chosen].tolist()],
        "warnings": warnings(paths, spectra, chosen),
    }
    if len(membership.names):
        columns["group"] = membership.group
        texts["cluster"] = [membership.names[number] if number >= 0 else "" for number in membership.group]
    assert model.normaliser is not None
    attributes = {"normalisation": model.normaliser.describe(), "metals": built.metals or "fe_h"}
    with tqdm(total=len(chosen), unit="star", desc="write", disable=None) as bar:

        def counted() -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
            for flux, ivar in fluxes(paths, spectra, chosen):
                yield flux, ivar
                bar.update(len(flux))

        write_observed_survey(out, model.grid.wavelength, columns, texts, counted(), attributes)
