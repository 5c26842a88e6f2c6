"""What vendors say, as far as it is read and passed on.

Boundary: bounded and plain; nothing of it is believed. Source: spec/services.md.
"""

import json
from typing import Final, TypeAlias

from farthing.protocol.canonical import InvalidJson, LooseJson, parse_json
from farthing.protocol.errors import Refusal, refuse
from farthing.server.ports import VendorFailed

__all__ = [
    "JsonObject",
    "bounded",
    "check_stays",
    "is_passing",
    "plain",
    "quoted",
    "read_json",
    "read_object",
]

JsonObject: TypeAlias = dict[str, LooseJson]

_SAID_CHARACTERS_MAX: Final = 500
# Of the statuses of those who were asked wrongly, these say that it is only for now.
_MOMENTARY: Final = frozenset({408, 425, 429})

# Less than clients read (64): in the platform's answer it stands a little deeper.
_DEPTH_MAX: Final = 60


def check_stays(status: int) -> None:
    """Refuse an answer that leads elsewhere; raises `VendorFailed`."""
    if 300 <= status < 400:
        raise VendorFailed("The vendor's address leads elsewhere, where no payment follows.")


def is_passing(status: int) -> bool:
    """Whether a status without a word of the vendor's may be that of somebody on the way."""
    return status >= 500 or status in _MOMENTARY


def bounded(refusal: Refusal) -> Refusal:
    """A vendor's refusal as far as it is passed on: its code, a few words, when to ask again."""
    said = "" if refusal.message == refusal.code.says else refusal.message
    return refuse(refusal.code, message=quoted(said), retry_after_s=refusal.retry_after_s)


def quoted(text: str) -> str:
    """A vendor's words in quotes that they cannot end: nobody takes them for the platform's."""
    return f"The vendor says: {json.dumps(plain(text, _SAID_CHARACTERS_MAX))}." if text else ""


def plain(text: str, characters_max: int) -> str:
    """Text of others, short and without what would steer a terminal."""
    return "".join(each if each.isprintable() else " " for each in text[:characters_max])


def read_json(data: bytes) -> LooseJson:
    """Any JSON of a bounded depth; raises `InvalidJson`."""
    return parse_json(data, allow_float=True, allow_null=True, depth_max=_DEPTH_MAX)


def read_object(data: bytes) -> JsonObject | None:
    """A JSON object, None where it is none."""
    try:
        value = read_json(data)
    except InvalidJson:
        return None
    return value if isinstance(value, dict) else None
