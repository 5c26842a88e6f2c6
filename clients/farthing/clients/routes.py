"""One call of a vendor's route: a POST of the arguments, paid in x402's headers.

Boundary: as `tools`, for a service that is no MCP tool; what comes is told in the same form.
Source: spec/payments-mcp.md#over-http.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from farthing.clients.posting import Poster, json_object, read_json
from farthing.clients.tools import ToolResult
from farthing.protocol.canonical import InvalidJson, LooseJson
from farthing.protocol.errors import Unreachable
from farthing.protocol.x402 import PAYMENT_RESPONSE as PAYMENT_RESPONSE_MEMBER
from farthing.protocol.x402_http import (
    PAYMENT_RESPONSE,
    PAYMENT_SIGNATURE,
    read_header,
    to_header,
)

__all__ = ["Route"]

_FAILED: Final = 400
_SERVER_FAILED: Final = 500


class Route(Poster):
    """One route, at its URL."""

    async def call(
        self, arguments: Mapping[str, object], payment: Mapping[str, object]
    ) -> ToolResult:
        """Call it once.

        Raises:
            Unreachable: No answer, or one that is neither a result nor a refusal: whether the work
                was done is not known.
        """
        answered = await self._post(
            orjson.dumps(arguments),
            {"accept": "application/json", PAYMENT_SIGNATURE: to_header(payment)},
        )
        said = answered.data.decode(errors="replace")
        if 200 <= answered.status < 300:
            return ToolResult(
                structured=self._result(answered.data),
                text="",
                is_error=False,
                meta={PAYMENT_RESPONSE_MEMBER: _said(answered.headers.get(PAYMENT_RESPONSE, ""))},
            )
        refusal = json_object(answered.data)
        if refusal is None and not _FAILED <= answered.status < _SERVER_FAILED:
            raise Unreachable(f"{self.url} answered HTTP {answered.status}")
        return ToolResult(structured=refusal, text=said, is_error=True)

    def _result(self, data: bytes) -> LooseJson:
        try:
            return read_json(data)
        except InvalidJson as error:
            raise Unreachable(f"{self.url} answered with no JSON") from error


def _said(header: str) -> LooseJson:
    try:
        return read_header(header)  # type: ignore[return-value]  # read strictly by its reader
    except ValueError:
        return None
