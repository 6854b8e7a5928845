"""The OpenAPI document: what FastAPI cannot tell of bodies that are read by hand and of errors of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.formats.negotiation import MEDIA
from app.schemas.requests import FitsQuery, RecastIn, SeveralIn, StarIn, StoredIn, UnstoredIn
from app.schemas.responses import EmbeddedAnswer, ManyAnswer, Refusal

BODIES = (StarIn, UnstoredIn, SeveralIn, StoredIn, RecastIn)
REFERENCE = "#/components/schemas/{model}"
MEANINGS = {
    401: "no key, or not one that may do this",
    404: "there is no such star",
    406: "Accept allows none of the answer's forms",
    408: "the body took too long to arrive",
    409: "the star was embedded with another model",
    413: "the body is over the limit",
    415: "a Content-Type or Content-Encoding that is not taken",
    422: "the request is understood and refused",
    503: "the queue is full or the store unavailable; Retry-After says when to try again",
}
OF_BODIES = (408, 413, 415)

Responses = dict[int | str, dict[str, Any]]


def refuses(*statuses: int) -> Responses:
    """Responses of a route: these statuses, each with the one error shape."""
    return {status: {"model": Refusal, "description": MEANINGS[status]} for status in statuses}


def answers(form: Any, *statuses: int, forms: Sequence[str] = ("json",)) -> Responses:
    """Responses of a route: 200 with the schema `form`, also in other `forms` than JSON, and these refusals."""
    content = {MEDIA[name][0]: {"schema": {"type": "string"}} for name in forms if name != "json"}
    if not content:
        return {200: {"model": form}, **refuses(*statuses)}
    return {200: {"model": form, "content": content}, **refuses(406, *statuses)}


def embed_answers() -> Responses:
    """Those of POST /embed; the star that it stores can be asked for."""
    star = {"star_id": "$response.body#/star_id"}
    in_path = {name: {"operationId": name, "parameters": star} for name in ("twins", "star", "delete")}
    recast = {"operationId": "recast", "requestBody": {**star, "to": {}}}
    links = {**in_path, "recast": recast}
    return {
        201: {"model": EmbeddedAnswer, "description": "stored", "links": links},
        200: {"model": EmbeddedAnswer | ManyAnswer, "description": "replaced; or several"},
        **refuses(*OF_BODIES),
    }


def request_body(forms: list[type[BaseModel]], *binary: str) -> dict[str, Any]:
    """The account of a body that the route reads for itself."""
    schemas = [{"$ref": REFERENCE.format(model=form.__name__)} for form in forms]
    content: dict[str, Any] = {
        "application/json": {"schema": {"anyOf": schemas} if len(schemas) > 1 else schemas[0]}
    }
    content.update({kind: {"schema": {"type": "string", "format": "binary"}} for kind in binary})
    return {"requestBody": {"required": True, "content": content}}


def fits_query() -> dict[str, Any]:
    """The account of the query string that goes with a FITS body."""
    fields = FitsQuery.model_json_schema()["properties"]
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": "with FITS only"}
            for name, schema in fields.items()
            if not name.startswith("parameters")
        ]
    }


def query_parameters(form: type[BaseModel]) -> dict[str, Any]:
    """The account of a query string that the route reads for itself, by the model `form`."""
    told = form.model_json_schema()
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in told.get("required", ()), "schema": schema}
            for name, schema in told["properties"].items()
        ]
    }


def loose_parameters(form: type[BaseModel]) -> dict[str, Any]:
    """As `query_parameters`, where one that does not fit is told of with status 200."""
    fields = form.model_json_schema()["properties"]
    return {
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}, "description": field["description"]}
            for name, field in fields.items()
        ]
    }


def votable_answers(*statuses: int) -> Responses:
    """Responses of a route whose answers, and refusals of its own parameters, are VOTables."""
    kind = {MEDIA["votable"][0]: {"schema": {"type": "string"}}}
    return {200: {"content": kind}, **refuses(*statuses)}


def complete(app: FastAPI) -> None:
    """Let the document of `app` hold the forms of the bodies too."""
    usual = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _, forms = models_json_schema([(form, "validation") for form in BODIES], ref_template=REFERENCE)
            told = usual()
            told["components"]["schemas"].update(forms["$defs"])
            for operation in (one for path in told["paths"].values() for one in path.values()):
                for parameter in operation.get("parameters", []):
                    parameter["schema"] = _without_null(parameter["schema"])
        return usual()

    app.openapi = document  # type: ignore[method-assign]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that is left out or has a value: a URL has no null."""
    forms = [form for form in schema.get("anyOf", []) if form != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return schema if not forms else {**rest, **forms[0]} if len(forms) == 1 else {**rest, "anyOf": forms}
