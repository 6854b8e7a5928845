"""The reader of a file or folder of stars, by what it is."""

from __future__ import annotations

from collections.abc import Mapping

from app.bulk.readers.array_reader import HDF5, ArrayReader, read_hdf5, read_npz
from app.bulk.readers.star_reader import InputFiles, StarReader
from app.settings import Settings
from model.errors import InputError


def open_stars(files: InputFiles, settings: Settings, extra_units: Mapping[str, str]) -> StarReader:
    """Open a survey in HDF5, an npz, or a folder of FITS files with a table of labels.

    Parameters
    ----------
    files
        The file, or the folder with its table.
    settings
        They name the bad bits of masks, and say whether spectra are stored.
    extra_units
        The units of the extra parameters that the model is conditioned on, by their names.

    Raises
    ------
    InputError
        There are no stars to read.
    """
    path = files.path
    if path.is_dir():
        if files.labels is None:
            raise InputError(f"{path} is a folder: --labels must name the table of its stars")
        from app.bulk.readers.fits_folder import FitsFolderReader  # astropy's half a second, for folders only

        return FitsFolderReader(files, settings, extra_units)
    if files.labels is not None:
        raise InputError(f"{path} is a file with labels of its own: --labels goes with a folder")
    if path.suffix == ".npz":
        return ArrayReader(files, read_npz(path), settings, extra_units)
    if path.suffix in HDF5:
        return ArrayReader(files, read_hdf5(path), settings, extra_units)
    raise InputError(f"{path} is neither a survey (.h5), nor an .npz, nor a folder")
