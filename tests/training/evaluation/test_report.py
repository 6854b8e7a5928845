import json
import shutil

import h5py
import pytest
from click.testing import CliRunner
from matplotlib.image import imread

from app.cli.main import cli
from model.bundle import save_model
from tests.pages import check_self_contained, look
from tests.training.small_surveys import thinned
from training.evaluation import figures
from training.fitting.polydis import fit
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import synthesize

ABUNDANCES = 4
"""Each takes a network for each model and a panel of its figure."""


def keep_few_abundances(path):
    """Leave a survey the first ABUNDANCES of the abundances that vary in it."""
    with h5py.File(path, "a") as file:
        names, values = file["abundances"].attrs["names"], file["abundances"][:]
        chosen = values.std(axis=0).nonzero()[0][:ABUNDANCES]
        del file["abundances"]
        file["abundances"] = values[:, chosen]
        file["abundances"].attrs["names"] = names[chosen]


@pytest.fixture(scope="module")
def report(tmp_path_factory, emulator, thin_survey, thin_xfe_survey):
    """A report on two models, three surveys, by the command line."""
    folder = tmp_path_factory.mktemp("report")
    for name, groups, seed, members in (("groups", 40, 505, 5), ("teacher", 400, 606, 2)):
        synthesize(folder / "whole.h5", emulator, groups, seed=seed, members=members)
        thinned(folder / "whole.h5", folder / f"{name}.h5")
    shutil.copy(thin_survey.path, folder / "pairs.h5")
    for name in ("groups", "pairs"):
        keep_few_abundances(folder / f"{name}.h5")
    for name, parameters in (("three", ("teff", "logg", "fe_h")), ("two", ("teff", "logg"))):
        model = fit(
            Survey.open(folder / "teacher.h5"), name=name, components=20, normalise=False, parameters=parameters
        )
        save_model(model, folder / f"{name}.safetensors")
    arguments = [
        "model", "evaluate", str(folder / "three.safetensors"), str(folder / "two.safetensors"), "--survey", str(folder / "pairs.h5"),
        "--survey", str(thin_xfe_survey.path), "--groups", str(folder / "groups.h5"),
        "--abundances", str(folder / "groups.h5"), "--report", str(folder / "out"),
    ]  # fmt: skip
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return folder / "out", result.output, arguments


@pytest.mark.long("a whole evaluation of two models on five surveys")
def test_the_report_has_every_figure_and_table(report):
    folder, text, _ = report
    results = json.loads((folder / "report.json").read_text())
    assert [r["label"] for r in results] == ["three", "two"]
    first = results[0]
    assert set(first["twins"]) == {"paper's pairs", "[X/Fe] pairs"}
    assert set(first["twins"]["paper's pairs"]) == {"inf", "100", "50", "30"}
    assert set(first["dependence"]["network"]) == {"teff", "logg", "fe_h"}
    assert set(results[1]["dependence"]["network"]) == {"teff", "logg"}
    assert set(first["groups"]) == {"inf", "100", "50"}
    assert len(first["abundances"]["linear"]) == 1 + ABUNDANCES
    for heading in ("Twin recovery", "data space", "Recasting", "Dependence on u", "Abundances", "Groups"):
        assert heading in text
    for picture in ("distances", "doppelgangers", "abundances-two", "twins-three", "residuals"):
        assert imread(folder / f"{picture}.png").std() > 0.05
        assert f"({picture}.png)" in text
    assert text.strip() == (folder / "report.md").read_text().strip()


def test_the_page_is_one_file_with_everything(report):
    folder, text, _ = report
    page = (folder / "report.html").read_text()
    check_self_contained(page, pictures=text.count("!["))
    first = json.loads((folder / "report.json").read_text())[0]["twins"]["paper's pairs"]["inf"]
    assert f"{first['recovered']:.3f} ({first['auc']:.4f})</td>" in page
    assert look(folder / "report.html").std() > 0.1


def test_the_numbers_in_the_text_are_those_measured(report):
    folder, text, _ = report
    for result in json.loads((folder / "report.json").read_text()):
        for pairs, levels in result["twins"].items():
            cells = " | ".join(f"{s['recovered']:.3f} ({s['auc']:.4f})" for s in levels.values())
            assert f"| {result['label']} | {pairs} | {cells} |" in text


def test_a_model_that_keeps_fe_h_is_not_judged_by_pairs_that_differ_in_it(report):
    three, two = json.loads((report[0] / "report.json").read_text())
    assert set(two["twins"]) == {"paper's pairs"}
    assert two["twins"]["paper's pairs"]["inf"]["recovered"] > 0.15
    assert three["twins"]["[X/Fe] pairs"]["inf"]["recovered"] > 0.2


def test_a_second_call_measures_nothing_again(report, monkeypatch):
    folder, text, arguments = report
    monkeypatch.setattr(figures, "_save", lambda figure, folder, name, alt: (name, alt))  # drawn once is enough
    before = (folder / "three.json").stat().st_mtime_ns
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert (folder / "three.json").stat().st_mtime_ns == before
    assert result.output == text


def test_two_models_of_one_name_are_refused(report, tmp_path):
    folder, _, arguments = report
    other = tmp_path / "three.safetensors"
    other.write_bytes((folder.parent / "three.safetensors").read_bytes())
    result = CliRunner().invoke(cli, ["model", "evaluate", str(other), *arguments[2:]])
    assert "same name" in str(result.exception)
