"""`chemtwin doctor`: each thing that the service needs is checked, and a finding says what to do."""

from __future__ import annotations

import difflib
import errno
import json
import os
import platform
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
from packaging.requirements import Requirement
from pydantic import ValidationError

from app.cli.port import listen_error
from app.inference.drift import drift_of
from app.settings import PREFIX, Settings, invalid, keys
from index.errors import StoreError
from index.search.twin_index import TwinIndex
from index.stores.open_store import open_store
from index.stores.sql_store import Store
from model.bundle import load_model
from model.errors import ModelFileError
from model.methods.base import Model

MIN_FREE = 2**30
"""Free disk, in bytes, below which an operator should act."""

MAX_OFFSET = 1.0
"""How far from its latent, in units of the noise at S/N 100, a model may embed its own noiseless spectrum."""


_RESTORE = (
    "Stop the service, move it away with the files of its name and restore a backup to its path (chemtwin "
    "catalogue restore BACKUP --to PATH)"
)
_REACH = (
    "It must be reachable, writable and of this release or an earlier one: look at its server, or at its disk"
)


@dataclass(frozen=True)
class Finding:
    """The result of one check, with what to do where `level` is not ok."""

    level: Literal["ok", "warn", "FAIL"]
    subject: str
    message: str


def examine() -> Iterator[Finding]:
    """Check everything, in the order in which a start needs it; what cannot be checked is left out."""
    yield from _packages()
    yield from _names()
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in invalid(error):
            yield Finding("FAIL", "settings", f"{problem}; see docs/reference/settings.md")
        return
    yield from _access(settings)
    model = None
    try:
        model = load_model(settings.model)
        yield _self_test(model)
    except ModelFileError as error:
        yield Finding("FAIL", "model", f"{error}; set CHEMTWIN_MODEL to a model file")
    if "://" not in settings.store_address:
        store_file = Path(settings.store_address)
        yield _folder(store_file.parent)
        if not store_file.exists():
            yield Finding("ok", "store", f"{store_file} does not exist yet: the first start makes it")
            return
    try:
        store = open_store(settings.store_address)
    except StoreError as error:
        yield Finding("FAIL", "store", f"{error} {_advice(error)}, or set CHEMTWIN_STORE")
        return
    try:
        yield from _contents(store, model, settings)
    except StoreError as error:
        yield Finding("FAIL", "store", f"{error}. {_advice(error)}")
    finally:
        store.close()


def _packages() -> Iterator[Finding]:
    wrong = []
    for line in metadata.requires("chemtwin") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is not installed")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, not {wanted.specifier}")
    text = f"chemtwin {metadata.version('chemtwin')}, Python {platform.python_version()}"
    if wrong:
        yield Finding("FAIL", "packages", f"{text}: {'; '.join(wrong)}: install chemtwin again")
        return
    try:
        import app.application  # noqa: F401
    except OSError as error:
        yield Finding("FAIL", "packages", f"cannot start ({error}): set HOME to a folder of the user's own")
    else:
        yield Finding("ok", "packages", f"{text}, torch {metadata.version('torch')}")


def _names() -> Iterator[Finding]:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    given = sorted(name for name in os.environ if name.upper().startswith(PREFIX))
    for name in given:
        if name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            yield Finding("FAIL", "settings", f"{name} is not a setting{hint} (docs/reference/settings.md)")
    if all(name.upper() in known for name in given):
        yield Finding("ok", "settings", ", ".join(given) or "all at their defaults")


def _access(settings: Settings) -> Iterator[Finding]:
    if not settings.loopback and not keys(settings.api_keys):
        yield Finding(
            "FAIL",
            "access",
            f"{settings.host} can be reached from outside and no key is needed: set CHEMTWIN_API_KEYS",
        )
    weak = sum(len(key) < 16 for key in keys(settings.api_keys) + keys(settings.read_keys))
    if weak:
        yield Finding(
            "warn", "access", f"{weak} keys are shorter than 16 characters: openssl rand -hex 24 makes one"
        )
    where, problem = f"{settings.host}:{settings.port}", listen_error(settings)
    if problem is None:
        yield Finding("ok", "access", f"{where} is free")
        return
    if problem.errno != errno.EADDRINUSE:
        yield Finding("FAIL", "access", f"cannot listen on {where} ({problem.strerror}): set CHEMTWIN_HOST")
        return
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{host}:{settings.port}/readyz", timeout=5) as response:
            ready = json.load(response)
        text = f"{ready['model']['name']}@{ready['model']['version']}, {ready['stars']} stars"
        yield Finding("ok", "access", f"a service runs on {where}: {text}")
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        yield Finding(
            "warn", "access", f"{where} is in use, but not by a ready service ({error}): set CHEMTWIN_PORT"
        )


def _self_test(model: Model) -> Finding:
    """Whether the model embeds a spectrum of its own at the latent that made it, and how fast."""
    card = model.card
    spectrum = model.example()
    offset = float(np.linalg.norm(model.embed([spectrum])[0].latent))
    start = time.perf_counter()
    model.embed([spectrum])
    seconds = time.perf_counter() - start
    text = f"{card.identity}, {card.latent_dim} latents, {len(model.grid)} pixels"
    if not offset < MAX_OFFSET:
        return Finding(
            "FAIL",
            "model",
            f"{text}: embeds its own spectrum at {offset:.2f} from its latent; take another copy",
        )
    return Finding("ok", "model", f"{text}; embeds a spectrum in {1e3 * seconds:.0f} ms")


def _folder(folder: Path) -> Finding:
    there = folder
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding("FAIL", "data", f"cannot write to {folder} ({error.strerror}): set CHEMTWIN_DATA_DIR")
    free = shutil.disk_usage(there).free
    text = f"{folder.resolve()}, {free / 2**30:.1f} GiB free"
    if free < MIN_FREE:
        return Finding("warn", "data", f"{text}: writes are refused once the disk is full; make room")
    return Finding("ok", "data", text)


def _advice(error: StoreError) -> str:
    return _RESTORE if error.damaged else _REACH


def _contents(store: Store, model: Model | None, settings: Settings) -> Iterator[Finding]:
    damage = store.damage()
    if damage is not None:
        yield Finding("FAIL", "store", f"{store.name} is damaged ({damage}). {_RESTORE}")
        return
    counts = store.stars_by_model()
    text = ", ".join(f"{count} by {name}" for name, count in sorted(counts.items()))
    yield Finding("ok", "store", f"{store.name} is intact: {text or 'no stars'}")
    if model is None:
        return
    own = model.card.identity
    if counts and own not in counts:
        yield Finding(
            "warn",
            "store",
            f"no star was embedded with {own}: embed them by chemtwin catalogue reindex or chemtwin catalogue "
            "ingest, for a star embedded with another model has no twins",
        )
    start = time.perf_counter()
    index = TwinIndex(store, own, model.card.latent_dim, settings.cache_folder)
    seconds = time.perf_counter() - start
    try:
        if len(index) == counts.get(own, 0):
            yield Finding("ok", "search", f"{len(index)} stars, caught up in {seconds:.1f} s")
        else:
            yield Finding(
                "warn", "search", f"{len(index)} stars, the store had {counts.get(own, 0)}: being written to?"
            )
        drift = drift_of(model, index)
        yield Finding("warn" if drift.large else "ok", "domain", drift.message)
    finally:
        index.close()
