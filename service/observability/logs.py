"""Structured logs: one JSON object per line, or lines for people."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson
import structlog

LogFormat = Literal["json", "console"]

# Web servers log each request on their own; the access line below says more, once.
_QUIET: Final = ("uvicorn.access", "gunicorn.access", "_granian.access", "granian.access")
_SERVERS: Final = ("uvicorn", "uvicorn.error", "gunicorn.error", "_granian")

# Without local variables: they hold the callers' rows, megabytes of them.
_TRACEBACK: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)

_access = structlog.get_logger("tandem.access")
# Where lines of answered requests go, past the processors above, which take ten times as long (38 µs each).
_direct: logging.StreamHandler[Any] | None = None


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
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if log_format == "console"
        else [structlog.processors.ExceptionRenderer(_TRACEBACK), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
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


def log_access(*, method: str, path: str, status: int, ms: float, request_id: str, error: BaseException | None) -> None:
    """One line per request. A failure of ours (500) carries its traceback; any other its text."""
    fields: dict[str, Any] = {
        "method": method,
        "path": path[:200],
        "status": status,
        "ms": round(ms, 3),
        "request_id": request_id,
    }
    if status == 500:
        _access.error("request", **fields, exc_info=error)
    elif error is not None:
        _access.info("request", **fields, error=type(error).__name__, detail=str(error)[:300])
    elif _direct is None or not _write(_direct, fields):
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
    handler.acquire()
    try:
        handler.stream.write(line)
        handler.flush()
    except (OSError, ValueError):  # a full disk, a closed stream: no reason to fail a request
        handler.handleError(logging.LogRecord("tandem.access", logging.INFO, "", 0, "request", (), None))
    finally:
        handler.release()
    return True
