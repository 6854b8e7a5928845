"""The OpenAPI document is true: hundreds of generated requests find nothing, and it holds what they cannot see."""

import os
import re
import subprocess
import sys

import pytest
from fastapi.routing import iter_route_contexts
from pydantic import TypeAdapter

from app.application import create_app
from app.settings import Settings
from tests.app.routes.test_errors import check
from tests.conftest import ROOT


@pytest.mark.long("some hundred generated requests to a service of its own")
def test_generated_requests_find_nothing(tmp_path, times):
    cases = 100 * times
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.hostile.generated_requests",
            "--cases",
            str(cases),
            "--examples",
            "15",
            "--first",
            "fuzzing,stateful",
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-3000:]
    requests = re.search(r"^(\d+) requests", done.stdout, re.MULTILINE)
    assert requests
    assert int(requests[1]) >= cases


def operations(**settings):
    document = create_app(Settings(**settings)).openapi()
    return document, [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_error_has_the_one_schema():
    _, found = operations()
    for path, method, operation in found:
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorResponse"}, (path, method, status)


def test_every_reference_has_its_schema():
    document, _ = operations()
    names = re.findall(r"#/components/schemas/(\w+)", str(document))
    assert set(names) <= set(document["components"]["schemas"])
    assert "$defs" not in str(document)


@pytest.mark.parametrize("settings", [{"api_keys": "a"}, {"read_keys": "a"}, {}])
def test_keys_are_in_the_document_when_they_are_asked_for(settings):
    document, found = operations(**settings)
    assert ("securitySchemes" in document["components"]) == bool(settings)
    for path, _, operation in found:
        asked = bool(settings) and path not in ("/healthz", "/readyz")
        assert ("security" in operation) == ("401" in operation["responses"]) == asked


def test_every_link_leads_to_an_operation():
    document, found = operations()
    links = document["paths"]["/embed"]["post"]["responses"]["201"]["links"]
    assert {"twins", "star", "delete", "recast"} <= {operation["operationId"] for _, _, operation in found}
    assert {link["operationId"] for link in links.values()} == {"twins", "star", "delete", "recast"}


def test_what_generated_requests_found(client, star):
    """Each was an internal error, or a header that left a method out."""
    found = client.get("/twins/SYN-202-000000A?fe_h_within=any&k=3&max_distance=2.7e292")
    assert found.status_code == 200
    assert len(found.json()["twins"]) == 3
    for changed in ({"teff_err": 1e300}, {"fe_h_err": 1e160}, {"logg_err": 14}):
        check(client.post("/embed", json={**star, **changed, "star_id": "NO"}), 422, "bad_parameters")
    pixels = len(star["flux"])
    huge = {"flux": ([1e308, -1e308] * pixels)[:pixels], "normalized": False}
    elsewhere = {"wavelength": [15100 + 0.25 * i for i in range(pixels)]}
    bare = {"flux": [1e35] * pixels, "normalized": False, "ivar": None}
    for changed in (huge | elsewhere, huge, {"ivar": [1e100] * pixels}, bare):
        check(client.post("/embed", json={**star, **changed, "star_id": "NO"}), 422, "too_large")
    assert client.options("/stars/A").headers["allow"] == "DELETE, GET"
    check(client.post("/embed?teff=4000", json=star), 422, "invalid_request")


def json_models(app):
    """The models of the JSON responses other than errors, by method, path and status."""
    return {
        (method, route.path, status): response["model"]
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
        for status, response in getattr(route, "responses", {}).items()
        if status < 400 and "model" in response
    }


def test_responses_have_the_form_that_the_document_shows(client, star):
    body = {**star, "star_id": "FORM-1"}
    unstored = {name: value for name, value in star.items() if name != "star_id"}
    to = {"to": {"teff": 4300}}
    calls = [
        ("POST", "/embed", {"json": body}, 201),
        ("POST", "/embed", {"json": {**body, "ivar": None}}, 200),
        ("POST", "/embed", {"json": {"stars": [body, {}]}}, 200),
        ("GET", "/twins/{star_id}", {}, 200),
        ("GET", "/twins/{star_id}", {"params": {"rank": "likelihood"}}, 200),
        ("POST", "/twins", {"json": unstored}, 200),
        ("POST", "/twins", {"json": {"star_ids": ["FORM-1", "NO"]}}, 200),
        ("POST", "/recast", {"json": {"star_id": "FORM-1", **to}}, 200),
        ("POST", "/recast", {"json": {"star_ids": ["FORM-1", "NO"], **to}}, 200),
        ("POST", "/spectrum", {"json": unstored}, 200),
        ("GET", "/stars", {"params": {"after": "FORM", "limit": 2}}, 200),
        ("GET", "/stars/{star_id}", {}, 200),
        ("GET", "/stars/{star_id}/spectrum", {}, 200),
        ("GET", "/stars/{star_id}/abundances", {}, 200),
        ("GET", "/map", {}, 200),
        ("GET", "/model", {}, 200),
        ("GET", "/healthz", {}, 200),
        ("GET", "/readyz", {}, 200),
        ("DELETE", "/stars/{star_id}", {}, 200),
    ]
    models = json_models(create_app(Settings()))
    assert {(method, path, status) for method, path, _, status in calls} == set(models)
    for method, path, sent, status in calls:
        response = client.request(method, path.format(star_id="FORM-1"), **sent)
        assert response.status_code == status, (method, path, response.text)
        TypeAdapter(models[method, path, status]).validate_json(response.content)
    check(client.get("/stars/FORM-1"), 404, "star_not_found")
