"""Which file of a folder is a star's: known names only, a stated order, nothing by chance."""

from pathlib import Path

import pytest

from app.bulk.readers.star_files import NoFile, StarFiles
from model.spectra.star_file import same_star

STAR = "2M17334253-1654573"


def files(folder: Path, *names: str) -> StarFiles:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return StarFiles.of(folder)


@pytest.mark.parametrize(
    "name",
    [
        f"apStar-r6-{STAR}.fits",
        f"apStar-dr17-{STAR}.fits",
        f"asStar-dr17-{STAR}.fits",
        f"apStar-1.3-apo25m-{STAR}.fits",
        f"aspcapStar-r6-l30e.2-{STAR}.fits",
        f"aspcapStar-dr17-{STAR}.fits",
        f"aspcapStar-v304-{STAR}.fits.gz",
        f"lco25m/000+08/apStar-dr17-{STAR}.fits",
        f"{STAR}.fits",
        f"{STAR}.FITS",
    ],
)
def test_a_star_is_found_by_the_names_of_the_survey(name, tmp_path):
    assert files(tmp_path, name).of_star(STAR) == name


@pytest.mark.parametrize("name", ["mwmStar-0.6.0-54323421.fits", "mwmVisit-0.6.0-54323421.fits"])
def test_a_star_of_sdss_v_is_found_by_its_number(name, tmp_path):
    assert files(tmp_path, name).of_star("54323421") == name


@pytest.mark.parametrize("star_id", ["1654573", "r6", "l30e.2-" + STAR, "4573", ""])
def test_the_tail_of_a_name_is_no_star(star_id, tmp_path):
    found = files(tmp_path, f"apStar-r6-{STAR}.fits", f"aspcapStar-r6-l30e.2-{STAR}.fits")
    with pytest.raises(NoFile, match="no file"):
        found.of_star(star_id)


def test_products_that_hold_no_spectrum_at_rest_are_no_stars_file(tmp_path):
    found = files(tmp_path, "apVisit-r5-4932-55891-285.fits", "astraStarASPCAP-0.6.0-54323421.fits")
    for star_id in ("54323421", "285"):
        with pytest.raises(NoFile):
            found.of_star(star_id)


def test_of_several_products_the_order_is_the_stated_one(tmp_path):
    names = [f"mwmVisit-0.6.0-{STAR}.fits", f"aspcapStar-dr17-{STAR}.fits", f"apStar-dr17-{STAR}.fits"]
    names += [f"mwmStar-0.6.0-{STAR}.fits", f"{STAR}.fits"]
    for number in range(len(names)):
        folder = tmp_path / str(number)
        assert files(folder, *names[: number + 1]).of_star(STAR) == names[number]


def test_two_files_of_one_product_are_refused_by_name(tmp_path):
    found = files(tmp_path, f"apStar-dr17-{STAR}.fits", f"asStar-dr17-{STAR}.fits")
    with pytest.raises(NoFile, match=r"2 files are this star's \(apStar-dr17-.*, asStar-dr17-.*\): name one"):
        found.of_star(STAR)
    again = files(tmp_path / "b", f"1/apStar-dr17-{STAR}.fits", f"2/apStar-dr17-{STAR}.fits")
    with pytest.raises(NoFile, match="2 files"):
        again.named(f"apStar-dr17-{STAR}.fits")
    assert again.named(f"2/apStar-dr17-{STAR}.fits") == f"2/apStar-dr17-{STAR}.fits"


def test_links_are_followed_and_the_same_file_counts_once(tmp_path):
    archive, mine = tmp_path / "archive", tmp_path / "mine"
    files(archive, f"apStar-dr17-{STAR}.fits")
    mine.mkdir()
    (mine / "link").symlink_to(archive)
    (mine / f"apStar-dr17-{STAR}.fits").symlink_to(archive / f"apStar-dr17-{STAR}.fits")
    found = StarFiles.of(mine)
    assert (mine / found.of_star(STAR)).read_text() == f"apStar-dr17-{STAR}.fits"


@pytest.mark.parametrize("name", ["../b.fits", "/b.fits", "a/../../b.fits"])
def test_a_named_file_is_in_the_folder(name, tmp_path):
    with pytest.raises(NoFile, match="is not in the folder"):
        files(tmp_path, "a.fits").named(name)


def test_a_named_file_may_be_gzipped_or_in_a_subfolder(tmp_path):
    found = files(tmp_path, "sub/a.fits.gz", "b.fits", "b.fits.gz")
    assert found.named("a.fits") == "sub/a.fits.gz"
    assert found.named("b.fits.gz") == "b.fits.gz"
    with pytest.raises(NoFile, match=r"no file c\.fits"):
        found.named("c.fits")
    with pytest.raises(NoFile, match=r"must end in \.fits"):
        found.named("labels.csv")


def test_two_designations_are_two_stars():
    assert same_star("2M00004994+1621552", "AP00004994+1621552")
    assert same_star("KIC-7", "2M00004994+1621552")
    assert not same_star("2M00004994+1621552", "2M17334253-1654573")
