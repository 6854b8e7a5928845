"""Clusters and groups of stars, asked of a service with the observed giants that ship."""

import csv
import io
import math

import httpx
import numpy as np
import pytest
from astropy.io.votable import parse_single_table

M67 = "2M08512156+1146061"


@pytest.fixture
def observed(giants):
    with httpx.Client(base_url=giants.url, timeout=60) as client:
        yield client


@pytest.fixture
def everything(observed) -> list[dict]:
    return observed.get(f"/twins/{M67}?k=1000&fe_h_within=any").json()["twins"]


def test_a_star_says_its_cluster(observed, everything):
    star = observed.get(f"/stars/{M67}").json()
    assert (star["cluster"], star["meta"]["cluster"], star["meta"]["kind"]) == ("M67", "M67", "open")
    assert len(everything) == 81
    assert sum(twin["cluster"] == "M67" for twin in everything) == 14


@pytest.mark.parametrize("k", [1, 3, 17, 100])
def test_only_a_cluster_or_all_but_it(observed, everything, k):
    """Exact: what a filter leaves of all twins, in their order, however few are asked for."""
    path = f"/twins/{M67}?k={k}&fe_h_within=any"
    for query, passes in (
        ("cluster=M67", lambda twin: twin["cluster"] == "M67"),
        ("not_cluster=M67", lambda twin: twin["cluster"] != "M67"),
        ("cluster=NGC%20188", lambda twin: twin["cluster"] == "NGC 188"),
        ("cluster=NGC+188&not_cluster=M67", lambda twin: twin["cluster"] == "NGC 188"),
        ("cluster=m67", lambda _: False),
        ("cluster=M67&logg_min=2.5", lambda twin: twin["cluster"] == "M67" and twin["logg"] >= 2.5),
    ):
        found = observed.get(f"{path}&{query}").json()["twins"]
        assert [twin["star_id"] for twin in found] == [t["star_id"] for t in everything if passes(t)][:k], query


def test_stars_that_are_of_no_cluster_are_in_none(client):
    """Synthetic stars: none has a cluster, so none is left out with one."""
    twins = client.get("/twins/SYN-202-000000A?k=5").json()["twins"]
    assert client.get("/twins/SYN-202-000000A?k=5&not_cluster=M67").json()["twins"] == twins
    assert client.get("/twins/SYN-202-000000A?k=5&cluster=M67").json()["twins"] == []
    assert [twin["cluster"] for twin in twins] == [None] * 5


def test_a_post_takes_the_same_filters(observed):
    several = observed.post("/twins?cluster=M67", json={"star_ids": [M67, "2M19205368+3750236"], "k": 3}).json()
    assert [{twin["cluster"] for twin in one["twins"]} <= {"M67"} for one in several["results"]] == [True, True]
    one = observed.post("/twins?not_cluster=M67&fe_h_within=any", json={"star_ids": [M67], "k": 3}).json()
    alone = observed.get(f"/twins/{M67}?not_cluster=M67&fe_h_within=any&k=3").json()
    assert one["results"][0]["twins"] == alone["twins"]


def test_the_name_may_be_a_group_and_changes_with_the_star(observed, star):
    for meta, cluster in (
        ({"group": " Hyades "}, "Hyades"),
        ({"cluster": 5}, None),
        ({"cluster": "x" * 65}, None),
    ):
        assert observed.post("/embed", json={**star, "meta": meta}).status_code in (200, 201)
        assert observed.get("/stars/TEST-1").json()["cluster"] == cluster
        found = observed.get(f"/twins/{M67}?cluster=Hyades&fe_h_within=any").json()["twins"]
        assert [twin["star_id"] for twin in found] == ([] if cluster is None else ["TEST-1"])
    observed.delete("/stars/TEST-1")


def test_pages_of_a_cluster(observed):
    whole = observed.get("/stars?cluster=M67").json()
    assert [star["cluster"] for star in whole["stars"]] == ["M67"] * 15
    assert whole["next"] is None
    ids = [star["star_id"] for star in whole["stars"]]
    page = observed.get("/stars?cluster=M67&limit=10&format=csv")
    rows = list(csv.DictReader(io.StringIO(page.text)))
    rest = observed.get(page.links["next"]["url"])
    rows += csv.DictReader(io.StringIO(rest.text))
    assert [row["star_id"] for row in rows] == ids
    assert {row["cluster"] for row in rows} == {"M67"}
    chosen = f"{ids[0]},{ids[1]},2M19205368+3750236".replace("+", "%2B")
    some = observed.get(f"/stars?cluster=M67&star_ids={chosen}").json()
    assert [star["star_id"] for star in some["stars"]] == ids[:2]
    assert observed.get("/stars?cluster=none").json() == {"stars": [], "next": None}


def test_tables_have_the_cluster(observed):
    text = observed.get(f"/twins/{M67}?k=4&format=csv").text
    clusters = [row["cluster"] for row in csv.DictReader(io.StringIO(text))]
    votable = observed.get(f"/twins/{M67}?k=4&format=votable")
    table = parse_single_table(io.BytesIO(votable.content))
    assert [str(cluster) for cluster in table.array["cluster"]] == clusters
    (within,) = [param for param in table.params if param.name == "fe_h_within"]
    assert within.value == pytest.approx(math.hypot(0.1, 2 * math.sqrt(2) * 0.04))


@pytest.mark.parametrize("query", ["cluster=", f"cluster={'x' * 65}", "not_cluster=%00", "cluster=a%0Ab"])
def test_what_is_no_name_of_a_cluster_is_an_error(observed, query):
    for path in (f"/twins/{M67}", "/stars"):
        response = observed.get(f"{path}?{query}")
        assert response.status_code == 422
        assert query.partition("=")[0] in response.json()["error"]["message"]


def test_errors_of_fe_h_widen_the_default_limit(observed, star):
    """By two standard deviations of the difference, in quadrature to the paper's 0.1 dex."""
    asked = observed.get(f"/twins/{M67}?k=1000").json()
    assert asked["fe_h_within"] == pytest.approx(0.1510, abs=1e-4)
    own = observed.get(f"/stars/{M67}").json()["fe_h"]
    apart = [abs(twin["fe_h"] - own) for twin in asked["twins"]]
    assert 0.1 < max(apart) <= asked["fe_h_within"] + 1e-9
    everything = observed.get(f"/twins/{M67}?k=1000&fe_h_within=any").json()
    assert everything["fe_h_within"] is None
    near = sum(abs(twin["fe_h"] - own) <= asked["fe_h_within"] for twin in everything["twins"])
    assert len(apart) == near
    narrow = observed.get(f"/twins/{M67}?k=1000&fe_h_within=0.1").json()
    assert narrow["fe_h_within"] == 0.1
    assert max(abs(twin["fe_h"] - own) for twin in narrow["twins"]) <= 0.1 + 1e-9
    typical = observed.get("/model").json()["typical_errors"]["fe_h"]
    for error, within in ((None, np.hypot(0.1, 8**0.5 * typical)), (0, 0.1), (0.1, 0.3)):
        found = observed.post("/twins", json={**star, "fe_h_err": error}).json()
        assert found["fe_h_within"] == pytest.approx(within), error


def test_siblings_are_nearer_than_the_rest(observed):
    """The product's claim, on real stars: the giants of M67 have more siblings near than chance has."""
    ids = [one["star_id"] for one in observed.get("/stars?cluster=M67").json()["stars"]]
    results = observed.post("/twins", json={"star_ids": ids, "k": 1}).json()["results"]
    hits = [one["twins"][0]["cluster"] == "M67" for one in results]
    assert np.mean(hits) > 0.6
