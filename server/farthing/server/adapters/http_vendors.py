"""Calls a vendor's route with a payment in x402's headers: one POST, one answer.

Boundary: as `mcp_vendors`. Source: spec/services.md#vendors-without-mcp, x402 specification v2 with
its HTTP transport.
"""

import orjson

from farthing.protocol.canonical import InvalidJson
from farthing.protocol.x402 import read_refusal, read_settlement
from farthing.protocol.x402_http import (
    PAYMENT_RESPONSE,
    PAYMENT_SIGNATURE,
    read_header,
    to_header,
)
from farthing.server.adapters.outbound import Answering, Outbound
from farthing.server.adapters.said import (
    bounded,
    check_stays,
    is_passing,
    read_json,
    read_object,
)
from farthing.server.ports import Delivered, PaidCall, VendorFailed, VendorLost, VendorRefused

__all__ = ["call_route"]


async def call_route(outbound: Outbound, call: PaidCall, bytes_max: int) -> Delivered:
    """Call a route once; raises as `VendorCaller`."""
    headers = {"accept": "application/json", PAYMENT_SIGNATURE: to_header(call.payment)}
    async with outbound.post(
        call.url,
        orjson.dumps(call.arguments),
        headers,
        timeout_s=call.timeout_s,
        bytes_max=bytes_max,
    ) as answering:
        check_stays(answering.status)
        body = b"".join([chunk async for chunk in answering.chunks()])
    if not 200 <= answering.status < 300:
        raise await _refused(answering, body)
    return await _delivered(answering, body)


async def _delivered(answering: Answering, body: bytes) -> Delivered:
    try:
        settled = read_settlement(read_header(answering.headers.get(PAYMENT_RESPONSE, "")))
    except ValueError:
        settled = None
    if settled is None:
        raise VendorFailed("The vendor answered without a delivery record.")
    try:
        result = await answering.read(read_json, body)
    except InvalidJson as error:
        raise VendorFailed("The vendor answered with no JSON.") from error
    return Delivered(
        hold_id=settled.hold_id,
        result=result,
        content=(),
        delivery=settled.delivery,
        delivery_signature=settled.delivery_signature,
    )


async def _refused(answering: Answering, body: bytes) -> Exception:
    """What a status says that is no answer."""
    status = answering.status
    if (refusal := read_refusal(await answering.read(read_object, body))) is not None:
        return VendorRefused(bounded(refusal))
    if is_passing(status):
        return VendorLost(f"The vendor answered HTTP {status}.")
    return VendorFailed(f"The vendor answered HTTP {status} and no refusal.")
