"""`chemtwin twins`: what the service would respond with, without one."""

import json
import re
import shutil

import httpx
import pytest
from astropy.table import Table

from app.cli.twins_table import COLUMNS
from index.stores.sqlite import SqliteStore
from tests.conftest import APSTAR, ASPCAP, DEFAULT_MODEL, GIANT
from tests.forked import run

LABELS = ("--teff", GIANT["teff"], "--logg", GIANT["logg"], "--fe-h", GIANT["fe_h"])

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(catalogue_data, tmp_path_factory):
    """A folder with a store of 1,200 stars, which no test changes."""
    folder = tmp_path_factory.mktemp("twins") / "data"
    shutil.copytree(catalogue_data, folder)
    return folder


def test_the_twins_are_those_of_the_service(start_server, data):
    server = start_server(data)
    headers = {"Content-Type": "application/fits"}
    response = httpx.post(
        f"{server.url}/twins", params={**GIANT, "k": 5}, content=APSTAR.read_bytes(), headers=headers
    )
    code, printed = run("twins", APSTAR, *LABELS, "--k", 5, "--format", "json", "--data-dir", data)
    assert code == 0, printed
    found, expected = (
        json.JSONDecoder().raw_decode(printed[printed.index("{\n") :])[0],
        response.raise_for_status().json(),
    )
    assert len(found["twins"]) == 5
    assert found == expected


def test_a_stored_star_is_asked_for_by_its_id(start_server, data):
    server = start_server(data)
    response = httpx.get(f"{server.url}/twins/SYN-202-000003A", params={"k": 5})
    code, printed = run("twins", "SYN-202-000003A", "-k", 5, "--format", "json", "--data-dir", data)
    assert code == 0, printed
    assert json.loads(printed) == response.raise_for_status().json()
    code, printed = run("twins", "SYN-202-000003A", "-k", 5, "--data-dir", data)
    assert printed.startswith(
        "twins of SYN-202-000003A among 1200 stars, those within 0.10 dex in [Fe/H], by chemtwin-gaussdis@"
    )
    assert "SYN-202-000003B" in printed.splitlines()[5]
    assert "same within noise: p_same is 0.01 or more" in printed
    assert "domain" not in printed, "all of them are inside"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9997, "> 0.999"), (0.9994, "0.999"), (1.0, "1.000"), (0.0004, "4.0e-04")],
)
def test_no_p_same_is_rounded_to_one_or_none(value, text):
    column = next(column for column in COLUMNS if column.name == "p_same")
    assert column.text({"p_same": value, "verdict": "same within noise"}) == text
    assert column.text({"p_same": value, "verdict": "cannot tell"}) == f"({text})", "it does not count"
    assert column.text({"p_same": None, "verdict": "cannot tell"}) == "-"


def test_the_table_has_a_row_for_each_twin(data):
    code, printed = run("twins", APSTAR, *LABELS, "-k", 3, "--data-dir", data)
    assert code == 0, printed
    assert "unlike those" in printed
    lines = [line for line in printed.splitlines() if not line.startswith("warning: ")]
    head, star, _, names, units, *rows, _, meaning = lines
    assert head.startswith(
        "twins of 2M00004994+1621552 among 1200 stars, those within 0.10 dex in [Fe/H], by chemtwin-gaussdis@"
    )
    assert star.startswith("the star: Teff 4705 K, log g 2.58, [Fe/H] 0.05")
    assert star.endswith(", outside the model's domain")
    assert re.split("  +", names) == [
        "star_id", "distance", "p_same", "verdict", "[Fe/H]", "Teff", "log g", "S/N", "doppelganger_rate",
    ]  # fmt: skip
    assert units.split() == ["dex", "K", "dex"]
    assert len(rows) == 3
    assert all("cannot tell" in row for row in rows), "the default model does not know the star"
    assert meaning.startswith("cannot tell: one of the two is outside the domain")
    distances = [float(row.split()[1]) for row in rows]
    assert distances == sorted(distances)


def test_the_table_of_an_observed_giant_is_read_by_a_person(giants):
    """Clusters, [Fe/H] with its error, a verdict in words, columns that stand below one another."""
    code, printed = run("twins", APSTAR, *LABELS, "--data-dir", giants.data_dir, **DEFAULT_MODEL)
    assert code == 0, printed
    table, warnings = printed.split("warning: ", 1)
    _, shown, verdicts = table.split("\n\n")
    names, _, *rows = shown.splitlines()
    assert len(rows) == 10
    domain = slice(names.index("domain"), None)
    assert {row[domain] for row in rows} == {"inside", "outside"}
    assert all("cannot tell" in row for row in rows if row[domain] == "outside")
    at = {
        name: names.index(name) + len(name) for name in ("distance", "p_same", "[Fe/H]", "Teff", "log g", "S/N")
    }
    for row in rows:
        assert row[: len("2M08521097+1131491")].startswith("2M")
        assert row[names.index("cluster") :].startswith(("M67", "NGC 188", "NGC 7789", "- "))
        assert row[names.index("verdict") :].startswith(("same within noise  ", "different  ", "cannot tell  "))
        assert all(row[end - 1].isdigit() or row[end - 1] == ")" for end in at.values())
        assert row[: at["[Fe/H]"]].endswith(" \N{PLUS-MINUS SIGN} 0.04")
    explained = [line.split(":")[0] for line in verdicts.splitlines()]
    assert explained == ["same within noise", "different", "cannot tell"]
    assert "doppelganger_rate" not in names, "82 stars have none"
    assert warnings.startswith("the model's typical errors are used where none were given")


def test_a_query_of_the_service_is_one_of_the_command(start_server, data):
    server = start_server(data)
    query = {"fe_h_within": "any", "rank": "likelihood", "logg_max": "2.5", "k": 4}
    response = httpx.get(f"{server.url}/twins/SYN-202-000003A", params=query).raise_for_status().json()
    options = [part for name, value in query.items() if name != "k" for part in ("--query", f"{name}={value}")]
    asked = ("twins", "SYN-202-000003A", "-k", 4, "--data-dir", data)
    code, printed = run(*asked, *options, "--format", "json")
    assert code == 0, printed
    assert json.loads(printed) == response
    code, printed = run(*asked, *options)
    assert "among 1200 stars, by chemtwin" in printed, "no limit in [Fe/H]"
    for wrong, message in (
        ("rank=age", "likelihood"),
        ("ranks=x", "ranks"),
        ("k=3", "option"),
        ("x", "NAME=VALUE"),
    ):
        code, printed = run(*asked, "--query", wrong)
        assert code
        assert message in printed


def test_without_a_twin_the_table_says_why(data, tmp_path):
    code, printed = run("twins", APSTAR, *LABELS[:-1], -3, "--data-dir", data)
    assert (code, "the catalogue has no other star within 0.10 dex in [Fe/H]" in printed) == (0, True), printed
    SqliteStore(tmp_path / "stars.sqlite").close()
    code, printed = run("twins", APSTAR, *LABELS, "--data-dir", tmp_path)
    assert (code, "the catalogue is empty: chemtwin catalogue ingest fills it" in printed) == (0, True), printed


def test_a_file_brings_its_labels_and_warnings_go_to_the_screen(data):
    code, printed = run("twins", ASPCAP, "--k", 2, "--format", "ecsv", "--data-dir", data)
    assert code == 0, printed
    warnings, text = printed[printed.index("warning:") :], printed[: printed.index("warning:")]
    assert "warning: fe_h is the file's [M/H]" in warnings
    table = Table.read(text.splitlines(), format="ascii.ecsv")
    assert len(table) == 2
    assert str(table["teff"].unit) == "K"
    assert table.meta["star_id"] == "2M17334253-1654573"


def test_nothing_is_stored(data):
    run("twins", APSTAR, *LABELS, "--data-dir", data)
    store = SqliteStore(data / "stars.sqlite")
    assert sum(store.stars_by_model().values()) == 1200
    store.close()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("NOBODY",), 1, "NOBODY is neither a file nor a star of"),
        (("apStar-none.fits", *LABELS), 2, "there is no file apStar-none.fits: labels go with a file"),
        (("SYN-202-000003A", "--parameter", "teff_err=60"), 2, "labels go with a file"),
    ],
)
def test_what_is_no_star_and_no_file_is_a_message(arguments, status, message, data):
    code, printed = run("twins", *arguments, "--data-dir", data)
    assert code == status, printed
    assert message in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "does not give all labels: give --teff and --logg and --fe-h too"),
        (("--logg", 3.14), "give --teff and --fe-h too"),
        ((*LABELS, "--parameter", "vbroad=3"), "vbroad"),
        ((*LABELS, "--parameter", "vbroad"), "write NAME=VALUE"),
        (("--teff", "4705K", "--logg", 2, "--fe-h", 0), "teff: must be a plain number"),
        (("--teff", 4705, "--logg", 99, "--fe-h", 0), "logg"),
        ((*LABELS, "--parameter", "teff_er=60"), "did you mean teff_err?"),
    ],
)
def test_what_cannot_be_used_is_a_message(options, message, data):
    code, printed = run("twins", APSTAR, *options, "--data-dir", data)
    assert code in (1, 2)
    assert message in printed
    assert "Traceback" not in printed
