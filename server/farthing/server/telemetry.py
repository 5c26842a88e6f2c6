"""Structured logs: one JSON line an event, on standard error; never a token, never a body.

Boundary: shapes what others log. Lines of the standard library's loggers take the same form, with
the id of the request that they belong to.
"""

import logging
import sys
import traceback
from contextlib import suppress
from typing import Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

from farthing.protocol.errors import FarthingError

__all__ = ["set_up_logs"]

# Whatever is logged under these names is left out; nobody should have to remember.
_NEVER: Final = frozenset({"authorization", "token", "body", "signature", "jwk", "private_jwk"})
_ROOMS: Final = ("farthing.server", "farthing.settlement")
# The errors whose text is written. Others' may quote what a caller sent; where they happened and
# their type stand in the log anyway.
_TOLD: Final = (FarthingError, AssertionError, AttributeError, OSError, TypeError)
_CAUSES_MAX: Final = 5


def set_up_logs(level: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process to one stream as JSON.

    Args:
        level: from which on the house's own lines are written; others' begin at `warning`.
        stream: where to; standard error unless told otherwise.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    out = cast("TextIO", _Spared(sys.stderr if stream is None else stream))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_told),
        _without_secrets,
    ]
    to_json = structlog.processors.JSONRenderer(sort_keys=True)
    structlog.configure(
        processors=[*shared, to_json],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # A line in one piece, however many processes write.
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, to_json],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    for room in _ROOMS:
        logging.getLogger(room).setLevel(number)


class _Spared:
    """A stream that is full or gone costs nobody the call that a line of it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _without_secrets(logger: object, method: str, event: EventDict) -> EventDict:
    del logger, method
    return {name: value for name, value in event.items() if name not in _NEVER}


def _told(exc_info: structlog.typing.ExcInfo) -> str:
    """An exception with its causes: type, place, and text where that cannot quote a caller."""
    lines: list[str] = []
    error: BaseException | None = exc_info[1]
    for _ in range(_CAUSES_MAX):
        if error is None:
            break
        text = f": {error}" if isinstance(error, _TOLD) else ""
        lines += [f"{type(error).__name__}{text}\n", *traceback.format_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    return "".join(lines)
