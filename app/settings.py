"""Every setting of the service: name, default, help. Each is an environment variable CHEMTWIN_<NAME>."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.operations.cores import cores
from model.bundle import SHIPPED
from model.errors import InputError
from model.spectra.spectrum import BAD_BITS

PREFIX = "CHEMTWIN_"


class Settings(BaseSettings):
    """The service's settings, read from the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on. Other than loopback needs api_keys.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(
        0,
        ge=0,
        description="Processes that serve, on one store. 0: as many as cores, or as a container's quota.",
    )
    data_dir: Path = Field(
        Path("data"), description="Folder of the star store (stars.sqlite), or of the cache of another store."
    )
    store: str = Field("", description="Another star store: a path, or a postgresql:// URL.")
    model: Path = Field(SHIPPED, description="Model file; the shipped one by default.")
    api_keys: str = Field("", description="Comma-separated keys that may write and read. Empty: no keys asked.")
    read_keys: str = Field("", description="Comma-separated keys that may only read.")
    max_body_mb: int = Field(64, ge=1, description="Largest request body, and largest unpacked npz, in MB.")
    max_total_body_mb: int = Field(
        128,
        ge=1,
        description="MB of request bodies in memory at once, per process, before the response is 503.",
    )
    body_timeout_s: float = Field(
        60, gt=0, description="Seconds in which a request body must have arrived, before the response is 408."
    )
    max_stars: int = Field(1000, ge=1, description="Most stars in one request.")
    queue_size: int = Field(
        256, ge=1, description="Spectra that may wait for inference before the response is 503."
    )
    batch_size: int = Field(32, ge=1, description="Most spectra embedded and committed together.")
    stop_timeout_s: int = Field(
        60, ge=1, description="Seconds that requests already accepted may take when the service is stopped."
    )
    log_format: Literal["text", "json"] = Field("text", description="Lines of log: text, or json objects.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe lines that are logged."
    )
    bad_bits: int = Field(
        BAD_BITS, ge=0, lt=2**31, description="Bits of the APOGEE pixel mask that make a pixel unusable."
    )
    store_spectra: bool = Field(
        False,
        description="Store every spectrum, for the explorer and for `chemtwin catalogue reindex`.",
    )

    @property
    def processes(self) -> int:
        """Processes that serve."""
        return self.workers or cores()

    @property
    def max_body_bytes(self) -> int:
        """Largest request body."""
        return self.max_body_mb * 1_000_000

    @property
    def store_address(self) -> str:
        """The store's path or URL."""
        return self.store or str(self.data_dir / "stars.sqlite")

    @property
    def cache_folder(self) -> Path:
        """Where the search's cache is: beside the store's file, or in `data_dir` for a database."""
        return self.data_dir if "://" in self.store_address else Path(self.store_address).parent

    @property
    def loopback(self) -> bool:
        """Whether `host` can be reached from this machine only."""
        return self.host in ("127.0.0.1", "localhost", "::1")


def read_settings(data_dir: Path | None = None, store: str | None = None) -> Settings:
    """The settings of the environment, in which what is given wins over every variable.

    Parameters
    ----------
    data_dir
        The folder of the store. No CHEMTWIN_STORE counts beside it.
    store
        The store itself, a path or a postgresql:// URL.

    Raises
    ------
    InputError
        A variable has a value that it cannot have.
    """
    given: dict[str, Any] = {}
    if data_dir is not None:
        given = {"data_dir": data_dir, "store": ""}
    if store is not None:
        given["store"] = store
    try:
        return Settings(**given)
    except ValidationError as error:
        raise InputError("; ".join(invalid(error)) + "; see docs/reference/settings.md") from error


def invalid(error: ValidationError) -> list[str]:
    """Which variables have values that they cannot have, and why."""
    return [
        f"{PREFIX}{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}" for problem in error.errors()
    ]


def keys(text: str) -> list[str]:
    """The keys of a comma-separated setting."""
    return [key.strip() for key in text.split(",") if key.strip()]
