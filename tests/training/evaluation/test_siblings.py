"""Scores of siblings, on distances whose scores can be counted by hand, and on the shipped real stars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from app.cli.main import cli
from app.cli.observed import _compared, _judge
from benchmarks import light_elements
from model.bundle import load_model
from model.errors import InputError
from model.methods.base import Card
from model.spectra.grid import Array
from model.spectra.parameters import Parameters
from model.spectra.spectrum import Spectrum
from tests.conftest import Server
from training.evaluation.siblings import Distances, Members, accepted_by_teff, always, lonely, scores
from training.evaluation.siblings_report import write

CARD = Card("toy", "1", "gaussdis", {}, 2, "Euclidean")
STARS = Path("training/observed/dr10_giants.h5")
SIBLINGS = Path("training/observed/members.csv")


def members(fe_h: list[float], group: list[int]) -> Members:
    spectra = [Spectrum(np.ones(1), np.ones(1), Parameters(4500.0, 2.0, value), True) for value in fe_h]
    return Members(spectra, [f"S{number}" for number in range(len(group))], np.array(group))


def test_pairs_of_siblings_by_their_difference_in_teff() -> None:
    stars = members([0.0] * 5, [0, 0, 0, 1, 1])
    spectra = [
        replace(one, parameters=replace(one.parameters, teff=teff))
        for one, teff in zip(stars.spectra, (4000.0, 4100.0, 4450.0, 4000.0, 4050.0), strict=True)
    ]
    same = np.full((5, 5), 0.5)
    same[0, 1] = same[1, 0] = same[0, 2] = same[2, 0] = 0.001
    found = accepted_by_teff(replace(stars, spectra=spectra), same)
    assert found == [(100.0, 2, 0.5), (400.0, 1, 1.0), (np.inf, 1, 0.0)]


def test_scores_counted_by_hand() -> None:
    stars = members([0.0, 0.0, 0.0, 0.4, 0.4], [0, 0, 0, 1, 1])
    position = np.array([0.0, 1.0, 10.0, 9.0, 30.0])
    distance = np.abs(position[:, None] - position)
    same = np.where(distance < 5, 0.5, 0.001)
    found, probabilities = scores(stars, lambda _: (distance, same))
    assert found.nearest == 2 / 5  # 0 and 1 have each other; 2 has 3, 3 has 2, 4 has 2
    assert found.accepted == 2 / 8
    assert found.median == pytest.approx(0.001)
    assert found.far_accepted == 2 / 12  # stars 2 and 3, either way
    siblings, strangers = [1, 10, 9, 21], [9, 30, 8, 29, 1, 20]
    wins = sum((s < o) + 0.5 * (s == o) for s in siblings for o in strangers)
    assert found.auc == pytest.approx(wins / 24)
    assert found.doppelganger_rate == pytest.approx(np.mean([3 / 6, 4 / 6]))
    assert probabilities is not None
    assert lonely(stars, probabilities) == ["S2", "S3", "S4"]


def test_every_row_comes_from_the_model_without_its_own_group() -> None:
    stars = members([0.0, 0.0, 0.4, 0.4], [0, 0, 1, 1])
    near, far = np.zeros((4, 4)), np.ones((4, 4))
    _, probabilities = scores(stars, lambda left_out: (near, far * (0.25 if left_out == 0 else 0.75)))
    assert probabilities is not None
    assert probabilities[:2].max() == 0.25
    assert probabilities[2:].min() == 0.75


def test_the_command_prints_baselines_and_the_model_and_writes_them_to_a_page(tmp_path: Path) -> None:
    command = ["model", "siblings", "model/default.safetensors", str(STARS), "--siblings", str(SIBLINGS)]
    result = CliRunner().invoke(cli, [*command, "--report", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    lines = {line[:28].strip(): line.split() for line in result.output.splitlines()}
    assert {
        "raw flux",
        "flux less a polynomial of u",
        "PolyDis",
        "abundances",
        "chemtwin-observed, by distan",
    } <= set(lines)

    page = (tmp_path / "report" / "siblings.md").read_text()
    assert "| raw flux | 0.907 |" in page
    assert "Every star is accepted by at least one sibling." in page
    assert (tmp_path / "report" / "p_same-chemtwin-observed.png").exists()
    assert "data:image/png" in (tmp_path / "report" / "siblings.html").read_text()


def test_clusters_that_the_stars_come_with_are_groups_too() -> None:
    command = ["model", "siblings", "model/default.safetensors", str(STARS)]
    result = CliRunner().invoke(cli, [*command, "--clusters"])
    assert result.exit_code == 0, result.output
    assert "scores of 44 siblings in 5 groups" in result.output
    assert "M107, M5, M71: median [Fe/H] below -0.6, as of globular clusters" in result.stderr
    for groups in ([], ["--clusters", "--siblings", str(SIBLINGS)]):
        result = CliRunner().invoke(cli, [*command, *groups])
        assert result.exit_code == 2
        assert "give --siblings or --clusters" in result.output


def test_the_shipped_model_of_the_branch_finds_siblings_and_sees_the_light_elements() -> None:
    """The model was adapted to these members: this is a test of its file, no measurement."""
    model = "model/branch.safetensors"
    siblings = ["model", "siblings", model, str(STARS), "--siblings", str(SIBLINGS)]
    result = CliRunner().invoke(cli, siblings)
    assert result.exit_code == 0, result.output
    row = next(line for line in result.output.splitlines() if line.startswith("chemtwin-branch, by p_same"))
    nearest, auc, _, _, accepted, *_ = row.removeprefix("chemtwin-branch, by p_same").split()
    assert float(nearest) >= 0.95
    assert float(auc) >= 0.95
    assert float(accepted) >= 0.9

    cluster, abundances, errors = light_elements.read(Path(model), STARS)
    spread = {name: abundances["Al"][cluster == name].std() for name in ("M5", "M67")}
    assert spread["M5"] > np.median(errors["Al"][cluster == "M5"])
    assert spread["M5"] > 2 * spread["M67"]
    assert spread["M67"] < 0.06


def test_the_shipped_model_of_the_branch_knows_the_branch() -> None:
    model = load_model(Path("model/branch.safetensors"))
    assert not model.outside(Parameters(3788.0, 1.08, 0.0))
    assert not model.outside(Parameters(4948.0, 3.4, -1.5))
    (reason,) = model.outside(Parameters(5000.0, 4.5, 0.0))
    assert "logg = 4.5" in reason


def test_the_service_says_which_log_g_the_branch_has(start_server: Callable[..., Server]) -> None:
    server = start_server(CHEMTWIN_MODEL=str(Path("model/branch.safetensors").resolve()))
    card = httpx.get(f"{server.url}/model").json()
    limits = card["logg_limits"]
    assert [limits[0]["teff"], limits[-1]["teff"]] == pytest.approx([3700, 5300], abs=1)
    assert all(one["min"] < one["max"] < 3.9 for one in limits)
    assert limits[0]["max"] < 1.6
    assert {"C", "N", "Al"} <= set(card["abundances"])


def test_a_page_names_stars_that_no_sibling_accepts_with_their_labels(tmp_path: Path) -> None:
    stars = members([0.0, 0.0, 0.1, 0.3, 0.3], [0, 0, 0, 1, 1])
    same = np.eye(5)
    same[[0, 1, 3, 4], [1, 0, 4, 3]] = 0.5
    found, _ = scores(stars, lambda _: (1 - same, same))
    names = {"S0": "M67", "S1": "M67", "S2": "M67", "S3": "NGC 188", "S4": "NGC 188"}
    write(tmp_path, "stars", stars, names, {"a": found}, {"a": same})
    page = (tmp_path / "siblings.md").read_text()
    assert "Stars that no sibling accepts: 1." in page
    assert "| S2 | M67 | 4500 | 2.00 | 0.10 | 0.10 |" in page


def test_siblings_that_are_not_among_the_stars_are_named(tmp_path: Path) -> None:
    unknown = tmp_path / "groups.csv"
    unknown.write_text("star_id,group\nNOBODY,M67\n")
    result = CliRunner().invoke(
        cli, ["model", "siblings", "model/default.safetensors", str(STARS), "--siblings", str(unknown)]
    )
    assert result.exit_code != 0
    assert "NOBODY" in str(result.exception)


def test_adapting_names_siblings_that_none_accepts_and_warns_of_poor_scores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """S0 and S1 are siblings, S2 and S3 are said to be."""
    stars = members([0.0] * 4, [0, 0, 1, 1])
    apart = np.array([[0, 1, 9, 9], [1, 0, 9, 9], [9, 9, 0, 5], [9, 9, 5, 0]], dtype=float)
    same = np.where(apart == 1, 0.5, 1e-4)

    def ways(before: Array, adapted: Array) -> dict[str, Distances]:
        return {"before": always(apart, before), "adapted, group left out": always(apart, adapted)}

    _judge(stars, ways(same, same), CARD)
    said = capsys.readouterr()
    assert "adapted, group left out, no sibling accepts: S2, S3" in said.out
    assert "warning: only 0.50 of the siblings accept each other" in said.err
    every = np.where(apart < 9, 0.5, 1e-4)
    quality = _judge(stars, ways(same, every), CARD)
    left_out = quality["siblings_left_out"]
    assert (left_out["siblings"], left_out["groups"]) == (4, 2)
    assert left_out["by_p_same"]["accepted"] == 1.0
    assert left_out["by_distance"]["nearest"] == 1.0
    said = capsys.readouterr()
    assert "adapted, group left out, no sibling" not in said.out + said.err
    assert "warning" not in said.err
    with pytest.raises(
        InputError, match=r"worse on groups that it did not see \(by p_same nearest 0.000, before 1.000"
    ):
        _judge(stars, ways(every, 1e-4 / every), CARD)
    capsys.readouterr()
    assert _judge(stars, ways(same, every), replace(CARD, quality=quality)) == quality
    assert "toy on its own 4, group left out, by p_same" in capsys.readouterr().out
    assert _compared(CARD, quality) == ""
    assert _compared(replace(CARD, quality=quality), quality).startswith("better than toy on its own")
    best = left_out["by_p_same"] | {"doppelganger_rate": -1.0}
    own = {"siblings_left_out": left_out | {"by_p_same": best}}
    assert "no better than toy" in _compared(replace(CARD, quality=own), quality)
    known = {"as it is": always(apart, every)}
    assert _judge(stars, known | ways(same, every), CARD) == quality
