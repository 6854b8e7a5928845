"""Many stars in few requests, with progress."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from astropy.table import Table
from tqdm import tqdm

from chemtwin_client import answers, spectra
from chemtwin_client.errors import ChemtwinError, Refused
from chemtwin_client.stars import Stars
from chemtwin_client.transport import STAR_ID, Transport

TOGETHER = 64
"""Stars of one request: as many as the service embeds together by default."""

MOST_BYTES = 32_000_000
"""Of one request's body; the service takes 64 MB by default."""

SEARCHED_TOGETHER = 100
"""Stars of one request for twins: 100,000 neighbours, which is what the service takes, are 1,000 of each."""

FOUND = ("snr", "chi2", "masked_fraction", "in_domain", "warnings", "latent", "latent_sd")
RESULT = ("star_id", "outcome", "code", "message", *FOUND)

Row = dict[str, Any]


@dataclass
class Outcomes:
    """What became of the stars, by row."""

    rows: list[Row]
    bar: Any
    refused: int = 0

    def done(self, row: int, answer: Mapping[str, Any]) -> None:
        """A star's own answer: stored, replaced, or an error."""
        if "error" in answer:
            return self.refuse(row, answer["error"]["code"], answer["error"]["message"])
        replaced = answer.get("replaced")  # a star of GET /stars does not tell: it was there before
        outcome = "skipped" if replaced is None else "replaced" if replaced else "stored"
        found = {name: answer[name] for name in FOUND}
        self.rows[row] |= {**found, "outcome": outcome, "warnings": "; ".join(answer["warnings"])}
        self.bar.update()
        return None

    def refuse(self, row: int, code: str, message: str) -> None:
        """A star that is not stored, and why."""
        self.rows[row] |= {"outcome": "refused", "code": code, "message": message}
        self.refused += 1
        self.bar.set_postfix(refused=self.refused)
        self.bar.update()


def embed_many(transport: Transport, stars: Stars, model: str, skip_stored: bool, progress: bool) -> Table:
    """The table that `Chemtwin.embed_many` returns; `model` is the service's, as name@version."""
    nothing = {**dict.fromkeys(FOUND), "warnings": "", "in_domain": False, "code": "", "message": ""}
    rows = [{"outcome": "", "star_id": star_id, **nothing} for star_id in stars.ids]
    with tqdm(total=len(stars), desc="embed", unit="star", disable=not progress) as bar:
        outcomes = Outcomes(rows, bar)
        try:
            for start in range(0, len(stars), TOGETHER):
                _block(
                    transport,
                    stars,
                    range(start, min(start + TOGETHER, len(stars))),
                    model if skip_stored else "",
                    outcomes,
                )
        except ChemtwinError as error:
            done = sum(bool(row["outcome"]) for row in outcomes.rows)
            error.add_note(f"{done} of {len(stars)} stars were done; with skip_stored=True the rest follows")
            raise
    made = answers.table(outcomes.rows, RESULT, {})
    made.meta["model"] = model
    return made


def summary(done: Table) -> str:
    """How many stars of `embed_many`'s table have warnings or are refused, and where; "" for none."""
    refused = done["outcome"] == "refused"
    warned, outside = done["warnings"] != "", ~done["in_domain"] & ~refused
    if not (warned | outside | refused).any():
        return ""
    return (
        f"{len(done)} stars: {warned.sum()} with warnings (column warnings), "
        f"{outside.sum()} outside the model's domain (column in_domain), "
        f"{refused.sum()} refused (columns code and message)"
    )


def _block(transport: Transport, stars: Stars, rows: range, skip_model: str, outcomes: Outcomes) -> None:
    """Store some rows, without those that `skip_model` has stored; their spectra are read together."""
    for row in rows:
        if fault := stars.faults.get(row):
            outcomes.refuse(row, fault.code, str(fault))
    wanted = [row for row in rows if row not in stars.faults]
    if skip_model:
        stored = _stored(transport, [stars.ids[row] for row in wanted], skip_model)
        for row in wanted:
            if answer := stored.get(stars.ids[row]):
                outcomes.done(row, answer)
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
            outcomes.refuse(
                row, getattr(error, "code", "not_sent"), f"{error} (row {row}, star {stars.ids[row]})"
            )
            continue
        if is_file:
            _send_file(transport, body, row, outcomes)
        elif sum(map(len, bodies.values())) > MOST_BYTES:
            _send(transport, bodies, outcomes)
            bodies = {}
    _send(transport, bodies, outcomes)


def _stored(transport: Transport, star_ids: Sequence[str], model: str) -> dict[str, answers.Answer]:
    """Those of some stars that `model` has stored, as GET /stars shows them."""
    asked = [star_id for star_id in star_ids if STAR_ID.fullmatch(star_id)]  # others are refused when sent
    if not asked:
        return {}
    page = transport.json("GET", "/stars", {"star_ids": ",".join(asked), "limit": len(asked)})
    return {star["star_id"]: star for star in page["stars"] if answers.identity(star) == model}


def _send_file(transport: Transport, body: spectra.Body, row: int, outcomes: Outcomes) -> None:
    try:
        outcomes.done(row, transport.json("POST", "/embed", body.query, body.content, body.kind))
    except Refused as error:
        outcomes.refuse(row, error.code, error.message)


def _send(transport: Transport, bodies: dict[int, bytes], outcomes: Outcomes) -> None:
    """Send stars together; those for which the service was too busy are sent again, `retries` times."""
    for left in range(transport.retries, -1, -1):
        if not bodies:
            return
        content = b'{"stars":[' + b",".join(bodies.values()) + b"]}"
        results = transport.json("POST", "/embed", body=content)["results"]
        again = {}
        for (row, body), answer in zip(bodies.items(), results, strict=True):
            if answer["status"] == 503 and left:
                again[row] = body
            else:
                outcomes.done(row, answer)
        if again:
            time.sleep(1.0)
        bodies = again


def twins_many(
    transport: Transport, star_ids: Sequence[str], query: Mapping[str, Any], progress: bool
) -> tuple[list[str], list[answers.Answer], dict[str, str]]:
    """The ids that have an answer, their answers, and the messages of the others by id."""
    asked, found, refused = [], [], {}
    with tqdm(total=len(star_ids), desc="twins", unit="star", disable=not progress) as bar:
        for start in range(0, len(star_ids), SEARCHED_TOGETHER):
            part = star_ids[start : start + SEARCHED_TOGETHER]
            content = orjson.dumps({"star_ids": part})
            results = transport.json("POST", "/twins", query, content)["results"]
            for star_id, answer in zip(part, results, strict=True):
                if "error" in answer:
                    refused[star_id] = answer["error"]["message"]
                else:
                    asked.append(star_id)
                    found.append(answer)
            bar.update(len(part))
    return asked, found, refused
