"""Several services on one PostgreSQL."""

import httpx
import pytest
import yaml

from tests.conftest import ROOT
from tests.postgres import PASSWORD


@pytest.fixture
def services(postgres, start_server, tmp_path):
    """Two services on one database, each with a cache of its own; the password is libpq's to find."""
    url = postgres.create()
    variables = {"CHEMTWIN_STORE": url.replace(url[url.index("//") : url.index("@")], "//postgres")}
    variables["PGPASSWORD"] = PASSWORD
    return (
        start_server(tmp_path / "one", **variables),
        start_server(tmp_path / "two", **variables),
    )


def test_what_one_service_confirms_the_other_finds_at_once(postgres, services, star):
    one, two = (httpx.Client(base_url=server.url, timeout=60) for server in services)
    with one, two:
        for i in range(4):
            body = star | {"star_id": f"S-{i}", "teff": star["teff"] + i}
            assert (one, two)[i % 2].post("/embed", json=body).status_code == 201
            other = (two, one)[i % 2]
            assert other.get(f"/stars/S-{i}").json()["star_id"] == f"S-{i}"
            found = other.get(f"/twins/S-{i}?k=10&fe_h_within=any").json()
            assert {twin["star_id"] for twin in found["twins"]} == {f"S-{j}" for j in range(i)}
            assert found["searched"] == i + 1
        assert one.get("/twins/S-0?k=3").json()["exact"] is True
        assert [twin["star_id"] for twin in two.get("/twins/S-0?k=3").json()["twins"]] == [
            twin["star_id"] for twin in one.get("/twins/S-0?k=3").json()["twins"]
        ]
        assert two.delete("/stars/S-1").status_code == 200
        assert one.get("/stars/S-1").status_code == 404
        assert [page["star_id"] for page in one.get("/stars").json()["stars"]] == ["S-0", "S-2", "S-3"]
        assert one.get("/readyz").json()["stars"] == two.get("/readyz").json()["stars"] == 3
        assert one.get("/stars", params={"after": "S-\0"}).status_code == 422
        postgres.kill()
        response = two.post("/embed", json=star)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
        postgres.start()
        assert two.post("/embed", json=star).status_code == 201
        assert one.get(f"/twins/{star['star_id']}?k=5").status_code == 200
    assert all(PASSWORD not in server.log.read_text() for server in services)


def test_compose_has_a_profile_with_the_server():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    with_profile = {name for name, service in services.items() if service.get("profiles") == ["postgres"]}
    assert with_profile == {"chemtwin-postgres", "postgres"}
    assert services["chemtwin-postgres"]["environment"]["CHEMTWIN_STORE"].startswith("postgresql://")
    assert services["chemtwin-postgres"]["environment"]["CHEMTWIN_API_KEYS"].startswith("${CHEMTWIN_API_KEYS:?")
    assert services["chemtwin-postgres"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert services["postgres"]["volumes"][0].split(":")[0] in compose["volumes"]
    assert '".[postgres]"' in (ROOT / "Dockerfile").read_text()
