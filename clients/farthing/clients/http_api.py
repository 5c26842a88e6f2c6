"""One operation as plain JSON over signed HTTP: `POST /v1/NAME`, and what came back.

Boundary: the envelope only, as `tools` is MCP's; what an answer means, and what may be repeated, is
`transport`'s affair. Source: spec/transport-http.md.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import urlencode

import orjson

from farthing.clients.posting import Poster, json_object
from farthing.clients.tools import ToolResult
from farthing.protocol.errors import Unreachable
from farthing.protocol.messages.http import raw_of
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import ROOT

__all__ = ["HttpEndpoint"]

_REPLAYED: Final = f"{ROOT}/replayed"


class HttpEndpoint(Poster):
    """A platform's `/v1`, at the platform's public URL."""

    async def call_tool(self, name: str, arguments: Mapping[str, object]) -> ToolResult:
        """Carry out one operation; a refusal is a result with `is_error`.

        Raises:
            Unreachable: No answer, or one that is not of this API: whether it ran is not known.
        """
        path, headers = f"/v1/{name}", {"accept": "application/json, application/problem+json"}
        raw = raw_of(name)
        if raw is None or raw.name not in arguments:
            # In the order of canonical JSON, for which the strict reader has a short way.
            content = orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)
        else:
            content = cast("str", arguments[raw.name]).encode()
            rest = {member: value for member, value in arguments.items() if member != raw.name}
            path = f"{OPERATIONS[name].raw_path}?{urlencode(rest)}"
            headers["content-type"] = raw.media_type
        answered = await self._post(content, headers, path)
        shape = json_object(answered.data)
        is_error = answered.status != HTTPStatus.OK
        if shape is None or (is_error and not isinstance(shape.get("code"), str)):
            text = f"{self.url} answered HTTP {answered.status} in another form"
            raise Unreachable(text)
        replayed = answered.headers.get("idempotent-replayed") == "true"
        return ToolResult(structured=shape, text="", is_error=is_error, meta={_REPLAYED: replayed})
