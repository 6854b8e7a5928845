"""What routes say of themselves in the OpenAPI document, where their signatures cannot say it.

Bodies of several Content-Types are read by hand: a large one is counted while read, and parsed in a thread.
Errors have one form, whatever raised them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.formats.negotiation import MEDIA
from app.schemas.bodies import RecastIn, SeveralIn, StarIn, StoredIn, UnstoredIn
from app.schemas.responses import EmbeddedResponse, ErrorResponse, SeveralResponse

BODIES = (StarIn, UnstoredIn, SeveralIn, StoredIn, RecastIn)
REFERENCE = "#/components/schemas/{model}"
MEANINGS = {
    401: "no key, or not one that may do this",
    404: "there is no such star",
    406: "Accept allows none of the response's forms",
    408: "the body took too long to arrive",
    409: "the star was embedded with another model",
    413: "the body is over the limit",
    415: "a Content-Type or Content-Encoding that is not accepted",
    422: "the request is understood, and cannot be done",
    503: "the queue is full or the store unavailable; Retry-After says when to try again",
}
OF_BODIES = (408, 413, 415)

Responses = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Responses:
    """Error responses of a route, by status."""
    return {status: {"model": ErrorResponse, "description": MEANINGS[status]} for status in statuses}


def responses(form: Any, *statuses: int, forms: Sequence[str] = ("json",)) -> Responses:
    """All responses of a route.

    Parameters
    ----------
    form
        The model of its JSON response.
    *statuses
        Its errors.
    forms
        The forms of its response, of `app.formats.negotiation.MEDIA`.
    """
    content = {MEDIA[name][0]: {"schema": {"type": "string"}} for name in forms if name != "json"}
    if not content:
        return {200: {"model": form}, **errors(*statuses)}
    return {200: {"model": form, "content": content}, **errors(406, *statuses)}


def embed_responses() -> Responses:
    """All responses of POST /embed, with links to what can be asked of the stored star."""
    star = {"star_id": "$response.body#/star_id"}
    in_path = {name: {"operationId": name, "parameters": star} for name in ("twins", "star", "delete")}
    links = {**in_path, "recast": {"operationId": "recast", "requestBody": {**star, "to": {}}}}
    return {
        201: {"model": EmbeddedResponse, "description": "stored", "links": links},
        200: {"model": EmbeddedResponse | SeveralResponse, "description": "replaced; or several"},
        **errors(*OF_BODIES),
    }


def votable_responses() -> Responses:
    """Responses of a route that always sends a VOTable, also for errors of its own parameters."""
    return {200: {"content": {MEDIA["votable"][0]: {"schema": {"type": "string"}}}}}


def text_responses() -> Responses:
    """Responses of a route that sends plain text."""
    return {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


def request_body(forms: list[type[BaseModel]], *binary: str) -> dict[str, Any]:
    """The body of a route that reads it by hand: JSON of one of `forms`, or a file of a `binary` type."""
    schemas = [{"$ref": REFERENCE.format(model=form.__name__)} for form in forms]
    content: dict[str, Any] = {
        "application/json": {"schema": {"anyOf": schemas} if len(schemas) > 1 else schemas[0]}
    }
    content.update({kind: {"schema": {"type": "string", "format": "binary"}} for kind in binary})
    return {"requestBody": {"required": True, "content": content}}


def query_parameters(form: type[BaseModel]) -> dict[str, Any]:
    """The query string of a route that reads it by hand; no field of its model is required."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": {key: value for key, value in schema.items() if value is not None},
            }
            for name, schema in form.model_json_schema()["properties"].items()
        ]
    }


def loose_parameters(form: type[BaseModel]) -> dict[str, Any]:
    """The query string of a route that reports what does not fit with status 200."""
    fields = form.model_json_schema()["properties"]
    return {
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}, "description": field["description"]}
            for name, field in fields.items()
        ]
    }


def add_bodies(app: FastAPI) -> None:
    """Add the schemas of bodies that are read by hand to the document of `app`."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        complete = app.openapi_schema is not None
        content = generate()
        if not complete:
            _, forms = models_json_schema([(form, "validation") for form in BODIES], ref_template=REFERENCE)
            content["components"]["schemas"].update(forms["$defs"])
        return content

    app.openapi = document  # type: ignore[method-assign]
