"""Whether the service can listen on its host and port."""

from __future__ import annotations

import socket

from app.settings import Settings


def listen_error(settings: Settings) -> OSError | None:
    """Why nothing can listen on the settings' host and port now; None if it can."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        return error
    return None
