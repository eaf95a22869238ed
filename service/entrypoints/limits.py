"""How long and how much web servers read, as they are told at start."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from service.settings import Settings

# Of one body. Each takes about as long to read as a kilobyte, so that one-byte chunks are a way to keep a server busy.
MAX_CHUNKS: Final = 100_000

# Bodies up to this size are waited for before anything is decided. Larger ones would be held twice.
SMALL_BODY_BYTES: Final = 64 * 1024

# Under an event loop, larger bodies are decoded on a thread, and so is what has come of a body since it was last
# answered: a megabyte of JSON takes some ten milliseconds, in which the loop would answer nobody.
LARGE_BYTES: Final = 1024 * 1024

# Under this name our own servers hand over what an app calls before it reads a body that it answers while it comes:
# from then on the time for a body is that for each piece, and there may be any number of them.
IN_PIECES: Final = "tandem_in_pieces"

# Under this name in the environ of WSGI a server whose watchdog would take a long wait for a hang hands over what is to
# be called meanwhile, several times a minute.
LIVES: Final = "tandem.lives"


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Times in seconds, sizes in bytes; what each is for stands with the setting of the same name."""

    headers_timeout_s: float
    body_timeout_s: float
    write_timeout_s: float
    max_connections: int
    max_url_bytes: int
    max_headers_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> HttpLimits:
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Of one WebSocket, as above."""

    max_message_bytes: int
    ping_s: float
    write_timeout_s: float

    @classmethod
    def of(cls, settings: Settings) -> SocketLimits:
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})
