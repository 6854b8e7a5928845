"""The verdict of each twin, by every way to ask for twins."""

import pytest

STAR = "SYN-202-000000A"


@pytest.fixture
def every(star):
    """A query for all twins that are nearly as hot as the star."""
    return f"k=1000&fe_h_within=any&teff_min={star['teff'] - 150}&teff_max={star['teff'] + 150}"


@pytest.fixture
def odd(client, star):
    """Stars that nothing can be said of, one outside the model's domain and one without errors; and a copy."""
    bare = {name: value for name, value in star.items() if name != "ivar"}
    bodies = [
        star | {"star_id": "OUTSIDE", "logg": 4.4},
        bare | {"star_id": "BARE"},
        star | {"star_id": "COPY"},
    ]
    for body in bodies:
        client.post("/embed", json=body).raise_for_status()
    yield ["OUTSIDE", "BARE"]
    for body in bodies:
        client.delete(f"/stars/{body['star_id']}")


def test_a_twin_is_the_same_different_or_not_known(client, every, odd):
    twins = client.get(f"/twins/{STAR}?{every}").json()["twins"]
    verdicts = {twin["star_id"]: twin["verdict"] for twin in twins}
    assert {star_id: verdicts[star_id] for star_id in odd} == dict.fromkeys(odd, "cannot tell")
    assert verdicts["COPY"] == "same within noise"
    assert set(verdicts.values()) == {"same within noise", "different", "cannot tell"}
    for twin in twins:
        known = twin["in_domain"] and twin["p_same"] is not None
        same = "same within noise" if known and twin["p_same"] >= 0.01 else "different"
        assert twin["verdict"] == (same if known else "cannot tell")


def test_nothing_can_be_said_of_the_twins_of_an_odd_star(client, every, odd):
    """And the response has what is known of the star itself."""
    for star_id in odd:
        found = client.get(f"/twins/{star_id}?{every}").json()
        assert {twin["verdict"] for twin in found["twins"]} == {"cannot tell"}
        own = client.get(f"/stars/{star_id}").json()
        (several,) = client.post(f"/twins?{every}", json={"star_ids": [star_id]}).json()["results"]
        for response in (found, several):
            assert (response["in_domain"], response["warnings"]) == (own["in_domain"], own["warnings"])
    assert "logg = 4.4 is outside" in client.get("/twins/OUTSIDE").json()["warnings"][0]


def test_every_way_to_ask_gives_the_same_verdicts(client, every, odd, star):
    expected = [twin["verdict"] for twin in client.get(f"/twins/{STAR}?{every}").json()["twins"]]
    (stored,) = client.post(f"/twins?{every}", json={"star_ids": [STAR]}).json()["results"]
    assert [twin["verdict"] for twin in stored["twins"]] == expected
    csv = client.get(f"/twins/{STAR}?{every}&format=csv").text.splitlines()
    column = csv[0].split(",").index("verdict")
    assert [line.split(",")[column] for line in csv[1:]] == expected
    one = client.post(f"/twins?{every}", json=star | {"star_id": None}).json()
    (several,) = client.post(f"/twins?{every}", json={"stars": [star | {"star_id": None}]}).json()["results"]
    assert one["twins"] == several["twins"]
    assert {twin["star_id"]: twin["verdict"] for twin in one["twins"]}["OUTSIDE"] == "cannot tell"
