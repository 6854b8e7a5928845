"""Many stars in few requests, with progress."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from astropy.table import Table
from tqdm import tqdm

from chemtwin_client import responses, spectra
from chemtwin_client.errors import ChemtwinError, InvalidRequest
from chemtwin_client.stars import Stars
from chemtwin_client.transport import STAR_ID, Transport

STARS_AT_ONCE = 64
"""Stars of one request: as many as the service embeds together by default."""

MOST_BYTES = 32_000_000
"""Most bytes of one request's body; the service takes 64 MB by default."""

SEARCHES_AT_ONCE = 100
"""Stars of one request for twins: 100,000 neighbours, which is what the service takes, are 1,000 of each."""

TYPICAL = "the model's typical errors are used"
"""How the service's warning begins of a star that came without errors of some parameters."""

FOUND = ("snr", "chi2", "masked_fraction", "in_domain", "warnings", "latent", "latent_sd")
RESULT = ("star_id", "outcome", "code", "message", *FOUND)

Row = dict[str, Any]


@dataclass
class Outcomes:
    """The outcome of each star, by row."""

    rows: list[Row]
    bar: Any
    failures: int = 0

    def done(self, row: int, response: Mapping[str, Any]) -> None:
        """Record a star's own response: stored, replaced, or an error."""
        if "error" in response:
            return self.failed(row, response["error"]["code"], response["error"]["message"])
        replaced = response.get("replaced")  # absent from a star of GET /stars: it was stored before
        outcome = "skipped" if replaced is None else "replaced" if replaced else "stored"
        found = {name: response[name] for name in FOUND}
        self.rows[row] |= {**found, "outcome": outcome, "warnings": "; ".join(response["warnings"])}
        self.bar.update()
        return None

    def failed(self, row: int, code: str, message: str) -> None:
        """Record that a star is not stored, and why."""
        self.rows[row] |= {"outcome": "refused", "code": code, "message": message}
        self.failures += 1
        self.bar.set_postfix(refused=self.failures)
        self.bar.update()


def embed_many(transport: Transport, stars: Stars, model: str, skip_stored: bool, progress: bool) -> Table:
    """The table that `Chemtwin.embed_many` returns; `model` is the service's, as name@version."""
    nothing = {**dict.fromkeys(FOUND), "warnings": "", "in_domain": False, "code": "", "message": ""}
    rows = [{"outcome": "", "star_id": star_id, **nothing} for star_id in stars.ids]
    with tqdm(total=len(stars), desc="embed", unit="star", disable=not progress) as bar:
        outcomes = Outcomes(rows, bar)
        try:
            for start in range(0, len(stars), STARS_AT_ONCE):
                _block(
                    transport,
                    stars,
                    range(start, min(start + STARS_AT_ONCE, len(stars))),
                    model if skip_stored else "",
                    outcomes,
                )
        except ChemtwinError as error:
            done = sum(bool(row["outcome"]) for row in outcomes.rows)
            error.add_note(f"{done} of {len(stars)} stars were done; with skip_stored=True the rest follows")
            raise
    made = responses.table(outcomes.rows, RESULT, {})
    made.meta["model"] = model
    return made


def summary(done: Table) -> list[str]:
    """Count the stars of `embed_many`'s table with warnings or errors, in one message or in none."""
    refused = done["outcome"] == "refused"
    outside = ~done["in_domain"] & ~refused
    texts = [text.split("; ") if text else [] for text in done["warnings"]]
    typical = [[text for text in of_one if text.startswith(TYPICAL)] for of_one in texts]
    warned = sum(len(of_one) > len(own) for of_one, own in zip(texts, typical, strict=True))
    without = sum(map(bool, typical))
    if not (warned or without or (outside | refused).any()):
        return []
    message = (
        f"{len(done)} stars: {warned} with warnings (column warnings), "
        f"{outside.sum()} outside the model's domain (column in_domain), "
        f"{refused.sum()} refused (columns code and message)"
    )
    if not without:
        return [message]
    return [f"{message}; for {without} without errors of some parameters {TYPICAL}: 0 means exact"]


def _block(transport: Transport, stars: Stars, rows: range, skip_model: str, outcomes: Outcomes) -> None:
    """Store some rows, without those that `skip_model` has stored; their spectra are read together."""
    for row in rows:
        if fault := stars.faults.get(row):
            outcomes.failed(row, fault.code, str(fault))
    wanted = [row for row in rows if row not in stars.faults]
    if skip_model:
        stored = _stored(transport, [stars.ids[row] for row in wanted], skip_model)
        for row in wanted:
            if response := stored.get(stars.ids[row]):
                outcomes.done(row, response)
        wanted = [row for row in wanted if stars.ids[row] not in stored]
    if not wanted:
        return
    bodies: dict[int, bytes] = {}
    sources, arrays = stars.read(rows)
    for row in wanted:
        source = sources[row - rows.start]
        pixels = {name: values[row - rows.start] for name, values in arrays.items()}
        try:
            known = stars.known(row, is_file := spectra.is_file(source)) | pixels
            if is_file:
                body = spectra.body(source, known)
            else:
                bodies[row] = spectra.body(source, known).content
        except (ValueError, TypeError, OSError) as error:
            outcomes.failed(
                row, getattr(error, "code", "not_sent"), f"{error} (row {row}, star {stars.ids[row]})"
            )
            continue
        if is_file:
            _send_file(transport, body, row, outcomes)
        elif sum(map(len, bodies.values())) > MOST_BYTES:
            _send(transport, bodies, outcomes)
            bodies = {}
    _send(transport, bodies, outcomes)


def _stored(transport: Transport, star_ids: Sequence[str], model: str) -> dict[str, responses.Response]:
    """The stars that `model` has stored already, by id, as in GET /stars."""
    valid = [star_id for star_id in star_ids if STAR_ID.fullmatch(star_id)]  # the rest fail when sent
    if not valid:
        return {}
    page = transport.json("GET", "/stars", {"star_ids": ",".join(valid), "limit": len(valid)})
    return {star["star_id"]: star for star in page["stars"] if responses.identity(star) == model}


def _send_file(transport: Transport, body: spectra.Body, row: int, outcomes: Outcomes) -> None:
    try:
        outcomes.done(row, transport.json("POST", "/embed", body.query, body.content, body.kind))
    except InvalidRequest as error:
        outcomes.failed(row, error.code, error.message)


def _send(transport: Transport, bodies: dict[int, bytes], outcomes: Outcomes) -> None:
    """Send stars together; those for which the service was too busy are sent again, `retries` times."""
    for retries_left in range(transport.retries, -1, -1):
        if not bodies:
            return
        content = b'{"stars":[' + b",".join(bodies.values()) + b"]}"
        results = transport.json("POST", "/embed", body=content)["results"]
        again = {}
        for (row, body), response in zip(bodies.items(), results, strict=True):
            if response["status"] == 503 and retries_left:
                again[row] = body
            else:
                outcomes.done(row, response)
        if again:
            time.sleep(1.0)
        bodies = again


def twins_many(
    transport: Transport, star_ids: Sequence[str], query: Mapping[str, Any], progress: bool
) -> tuple[list[str], list[responses.Response], dict[str, str]]:
    """The ids that were searched, their responses, and the error messages of the rest by id."""
    searched, found, errors = [], [], {}
    with tqdm(total=len(star_ids), desc="twins", unit="star", disable=not progress) as bar:
        for start in range(0, len(star_ids), SEARCHES_AT_ONCE):
            part = star_ids[start : start + SEARCHES_AT_ONCE]
            content = orjson.dumps({"star_ids": part})
            results = transport.json("POST", "/twins", query, content)["results"]
            for star_id, response in zip(part, results, strict=True):
                if "error" in response:
                    errors[star_id] = response["error"]["message"]
                else:
                    searched.append(star_id)
                    found.append(response)
            bar.update(len(part))
    return searched, found, errors
