"""Structured logs: one JSON line an event, on standard error; never a token, never a body."""

import logging
import sys
from typing import Final

import structlog

__all__ = ["set_up_logs"]

_NEVER: Final = frozenset({"authorization", "token", "body", "signature", "private_jwk"})


def set_up_logs(level: str) -> None:
    """Send every log line of this process to standard error as JSON."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _without_secrets,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _without_secrets(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    del logger, method
    return {name: value for name, value in event.items() if name not in _NEVER}
