"""Many stars in few requests, with progress."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from astropy import units as u
from astropy.table import Table
from tqdm import tqdm

from chemtwin_client import answers, spectra
from chemtwin_client.errors import ChemtwinError, NotFound, Refused
from chemtwin_client.transport import Transport, in_path

TOGETHER = 64
"""Stars of one request: as many as the service embeds together by default."""

MOST_BYTES = 32_000_000
"""Of one request's body; the service takes 64 MB by default."""

SEARCHED_TOGETHER = 100
"""Stars of one request for twins: 100,000 neighbours, which is what the service takes, are 1,000 of each."""

OWN = ("star_id", *spectra.LABELS, "ra", "dec")
FOUND = ("snr", "chi2", "masked_fraction", "in_domain", "warnings", "latent", "latent_sd")
RESULT = ("star_id", "outcome", "code", "message", *FOUND)

Row = dict[str, Any]


def further(card: Mapping[str, Any]) -> list[str]:
    """The model's parameters beyond Teff, log g and [Fe/H]."""
    return [name for name in card["parameters"] if name not in ("teff", "logg", "fe_h")]


class Stars:
    """Spectra and labels, row by row. Raises ValueError where lengths disagree or `star_id` is missing."""

    def __init__(
        self,
        sources: Any,
        labels: Table | Mapping[str, Any],
        wavelength: Any,
        arrays: Mapping[str, Any],
        normalized: bool | None,
    ) -> None:
        self.sources, self.labels = sources, labels
        self.common = {"wavelength": wavelength, "normalized": normalized}
        self.arrays = arrays
        self.columns = set(getattr(labels, "colnames", labels))
        if "star_id" not in self.columns:
            raise ValueError("labels need a column star_id")
        lengths = {name: len(column) for name, column in {"sources": sources, **arrays}.items()}
        lengths["labels"] = len(labels["star_id"])
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"lengths disagree: {', '.join(f'{name} {length}' for name, length in lengths.items())}"
            )

    def __len__(self) -> int:
        return len(self.sources)

    def known(self, row: int, parameters: Sequence[str]) -> dict[str, Any]:
        """What `spectra.star` is to know of a row; `parameters` are the model's further ones."""
        told = {name: self._label(name, row) for name in OWN if name in self.columns}
        others = {name: self._label(name, row) for name in parameters if name in self.columns}
        errors = {name: self._label(f"{name}_err", row) for name in parameters if f"{name}_err" in self.columns}
        return {**told, "parameters": others or None, "parameters_err": errors or None}

    def _label(self, name: str, row: int) -> Any:
        column = self.labels[name]
        value = column[row]
        if name == "star_id":
            return value.decode() if isinstance(value, bytes) else str(value)
        unit = getattr(column, "unit", None)
        return value if unit is None or isinstance(value, u.Quantity) else value * unit

    def blocks(self) -> Iterator[tuple[range, Any, dict[str, Any]]]:
        """Rows, their sources and their arrays, read together."""
        for start in range(0, len(self), TOGETHER):
            rows = slice(start, min(start + TOGETHER, len(self)))
            part = {name: values[rows] for name, values in self.arrays.items()}
            yield range(rows.start, rows.stop), self.sources[rows], part


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


def embed_many(
    transport: Transport, stars: Stars, card: Mapping[str, Any], skip_stored: bool, progress: bool
) -> Table:
    """The table that `Chemtwin.embed_many` returns."""
    parameters, model = further(card), answers.identity(dict(card))
    nothing = {**dict.fromkeys(FOUND), "warnings": "", "in_domain": False, "code": "", "message": ""}
    with tqdm(total=len(stars), desc="embed", unit="star", disable=not progress) as bar:
        outcomes = Outcomes([{"outcome": "", **nothing} for _ in range(len(stars))], bar)
        try:
            for rows, sources, arrays in stars.blocks():
                bodies: dict[int, bytes] = {}
                for place, row in enumerate(rows):
                    known = stars.known(row, parameters)
                    outcomes.rows[row]["star_id"] = known["star_id"]
                    if skip_stored and (stored := _stored(transport, known["star_id"], model)):
                        outcomes.done(row, stored)
                        continue
                    given = {name: values[place] for name, values in arrays.items()}
                    try:
                        if spectra.is_file(sources[place]):
                            _file(transport, sources[place], known, row, outcomes)
                        else:
                            star = spectra.star(sources[place], {**known, **stars.common, **given})
                            bodies[row] = orjson.dumps(star, option=orjson.OPT_SERIALIZE_NUMPY)
                    except (ValueError, OSError) as error:
                        outcomes.refuse(row, "not_sent", str(error))
                    if sum(map(len, bodies.values())) > MOST_BYTES:
                        _send(transport, bodies, outcomes)
                        bodies = {}
                _send(transport, bodies, outcomes)
        except ChemtwinError as error:
            done = sum(bool(row["outcome"]) for row in outcomes.rows)
            error.add_note(f"{done} of {len(stars)} stars were done; with skip_stored=True the rest follows")
            raise
    made = answers.table(outcomes.rows, RESULT, {})
    made.meta["model"] = model
    return made


def _stored(transport: Transport, star_id: str, model: str) -> answers.Answer | None:
    """A star that is stored by this model, as GET /stars shows it."""
    with suppress(NotFound, ValueError):  # what cannot be an id is refused when it is sent
        star: answers.Answer = transport.json("GET", f"/stars/{in_path(star_id)}")
        if answers.identity(star) == model:
            return star
    return None


def _file(transport: Transport, path: Any, known: dict[str, Any], row: int, outcomes: Outcomes) -> None:
    usual = {name: value for name, value in known.items() if name not in ("ra", "dec")}  # the file brings them
    body = spectra.body(path, usual)
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
