"""Structured logs: one JSON object per line, or lines for people."""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson
import structlog

from service.core.loop import Turning
from service.observability.lines import Lines, standard_error

LogFormat = Literal["json", "console"]

# Web servers log each request on their own; the access line below says more, once.
_QUIET: Final = ("uvicorn.access", "gunicorn.access", "_granian.access", "granian.access")
_SERVERS: Final = ("uvicorn", "uvicorn.error", "gunicorn.error", "_granian")

# Without local variables: they hold the callers' rows, megabytes of them.
_TRACEBACK: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)

# Readers of logs cut or drop longer lines. A traceback takes more of it than anything else that is worth reading.
TEXT: Final = 16_384
# Characters that end a line, and those that terminals obey; the latter alone.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COMMANDS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_access = structlog.get_logger("tandem.access")
# Where lines of requests go, past the processors above, which take ten times as long (38 µs each).
_direct: logging.StreamHandler[Any] | None = None
_waiting: Final[deque[str]] = deque()
_writes = threading.Lock()  # held by who writes what waits
_lines: Lines | None = None
# The web server's loop, on its own thread: what is logged there is written at the end of its turn.
_here: Callable[[], Turning | None] | None = None


def configure_logs(log_format: LogFormat, level: str) -> None:
    """Send every logger of the process through one formatter to standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Any] = (
        [
            structlog.processors.format_exc_info,
            shortened,
            escaped,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
        if log_format == "console"
        else [structlog.processors.ExceptionRenderer(_TRACEBACK), shortened, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    global _lines
    _lines = standard_error()
    handler = logging.StreamHandler(_lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    global _direct
    _direct = handler if log_format == "json" and level in ("debug", "info") else None
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _SERVERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).disabled = True
    logging.captureWarnings(True)


def write_by_turns(here: Callable[[], Turning | None]) -> None:
    """From now on, lines of requests are written together at the end of a turn where `here` knows a loop."""
    global _here
    _here = here


def dropped_lines() -> int:
    """Lines of this process that were lost because nobody took them."""
    return _lines.dropped if _lines is not None else 0


def shortened(logger: Any, method: str, fields: Any) -> Any:
    """A processor: no text is longer than TEXT characters, wherever it stands. Libraries log whole bodies."""
    return _shortened(fields)


def _shortened(value: Any) -> Any:
    match value:
        case str():
            return value if len(value) <= TEXT else f"{value[:TEXT]}… ({len(value)} characters)"
        case dict():
            return {key: _shortened(part) for key, part in value.items()}
        case list() | tuple():
            return [_shortened(part) for part in value]
        case _:
            return value


def escaped(logger: Any, method: str, fields: Any) -> Any:
    """A processor: no text of others ends a line for people, or tells their terminal what to do.

    Tracebacks keep their lines.
    """
    return {
        key: (_COMMANDS if key == "exception" else _CONTROLS).sub(_escape, value) if isinstance(value, str) else value
        for key, value in fields.items()
    }


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def log_access(
    *,
    method: str,
    path: str,
    status: int,
    ms: float,
    request_id: str,
    error: BaseException | None,
    caller: str | None = None,
    trace_id: str | None = None,
) -> None:
    """One line per request. A failure of ours (500) carries its traceback; any other its text.

    `caller` is the name of a key, never the key; `trace_id` that of the trace which the request belongs to.
    """
    fields: dict[str, Any] = {
        "method": method[:40],
        "path": path[:200],
        "status": status,
        "ms": round(ms, 3),
        "request_id": request_id,
    }
    if caller is not None:
        fields["caller"] = caller
    if trace_id is not None:
        fields["trace_id"] = trace_id
    if status == 500:
        _access.error("request", **fields, exc_info=error)
        return
    if error is not None:
        fields["error"] = type(error).__name__
        fields["detail"] = getattr(error, "for_log", str(error))[:300]
    if _direct is None or not _write(_direct, fields):
        _access.info("request", **fields)


def _write(handler: logging.StreamHandler[Any], fields: dict[str, Any]) -> bool:
    """The line that the processors would make. False where it holds what only they can write."""
    about = {"event": "request", "logger": "tandem.access", "level": "info", "timestamp": datetime.now(UTC)}
    try:
        line = orjson.dumps({**fields, **about}, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE).decode()
    except orjson.JSONEncodeError:  # a lone surrogate in a path
        return False
    if not line.isascii():  # the processors escape what readers of lines might take for the end of one
        return False
    _waiting.append(line)
    loop = _here() if _here is not None else None
    if loop is None:
        _write_waiting(handler)
    elif len(_waiting) == 1:  # else somebody will take it along
        loop.call_soon(_write_waiting, handler)  # all lines of one turn of the loop at once
    return True


def _write_waiting(handler: logging.StreamHandler[Any]) -> None:
    """Nobody waits for another: whoever writes takes along what comes meanwhile, and looks again at the end."""
    while _waiting and _writes.acquire(blocking=False):
        handler.acquire()
        try:
            while _waiting:
                lines = [_waiting.popleft() for _ in range(len(_waiting))]
                if isinstance(handler.stream, Lines):
                    handler.stream.write_lines(lines)
                else:
                    handler.stream.write("".join(lines))
                    handler.flush()
        except (OSError, ValueError):  # a full disk, a closed stream: no reason to fail a request
            handler.handleError(logging.LogRecord("tandem.access", logging.INFO, "", 0, "request", (), None))
        finally:
            handler.release()
            _writes.release()


@atexit.register
def _write_last() -> None:
    """What came in the last turn of a loop that is no more."""
    if _direct is not None:
        _write_waiting(_direct)


def _forget() -> None:
    """In a forked child nobody writes, and what waits is the parent's."""
    global _writes
    _writes = threading.Lock()
    _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
