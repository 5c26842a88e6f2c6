"""The same tool sold by x402, with its own package and a facilitator in the same process.

The facilitator believes every payment and settles nothing, so that this is the least that x402
costs: no signature is checked, no chain asked, no ledger written.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from mcp_types import CallToolResult
from x402 import x402ResourceServer
from x402.mcp.server_async import PaymentWrapperConfig, create_payment_wrapper
from x402.mcp.types import MCPToolResult
from x402.schemas import (
    AssetAmount,
    PaymentRequirements,
    SettleResponse,
    SupportedKind,
    SupportedResponse,
    VerifyResponse,
)

__all__ = ["PAYMENT", "sold_by_x402"]

_NETWORK: Final = "eip155:84532"
_REQUIREMENTS: Final = PaymentRequirements(
    scheme="exact",
    network=_NETWORK,
    asset="0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    amount="10000",
    pay_to="0x" + "11" * 20,
    max_timeout_seconds=60,
)
PAYMENT: Final[dict[str, Any]] = {
    "x402Version": 2,
    "accepted": _REQUIREMENTS.model_dump(by_alias=True),
    "payload": {
        "signature": "0x" + "22" * 65,
        "authorization": {
            "from": "0x" + "33" * 20,
            "to": "0x" + "11" * 20,
            "value": "10000",
            "validAfter": "0",
            "validBefore": "9999999999",
            "nonce": "0x" + "44" * 32,
        },
    },
}


class _Facilitator:
    """Says yes to everything."""

    async def verify(self, *args: object, **named: object) -> VerifyResponse:
        del args, named
        return VerifyResponse(is_valid=True, payer="0x" + "33" * 20)

    async def settle(self, *args: object, **named: object) -> SettleResponse:
        del args, named
        return SettleResponse(success=True, transaction="0x" + "55" * 32, network=_NETWORK)

    def get_supported(self) -> SupportedResponse:
        kind = SupportedKind(x402_version=2, scheme="exact", network=_NETWORK)
        return SupportedResponse(kinds=[kind])


class _Exact:
    """The server's side of a scheme, as far as a fixed price needs one."""

    scheme = "exact"
    default_asset_transfer_method = "eip3009"
    payment_flows: Final = {
        "eip3009": {"supported": ("authorization",), "default": "authorization"}
    }

    def parse_price(self, price: object, network: str) -> AssetAmount:
        raise NotImplementedError

    def enhance_payment_requirements(
        self, requirements: PaymentRequirements, kind: SupportedKind, extensions: list[str]
    ) -> PaymentRequirements:
        del kind, extensions
        return requirements


def sold_by_x402(
    work: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[dict[str, Any], dict[str, Any]], Awaitable[CallToolResult]]:
    """A tool's body behind the package's own wrapper: arguments and `_meta` to a result."""
    server = x402ResourceServer(_Facilitator())
    server.register(_NETWORK, _Exact())  # type: ignore[arg-type]
    server.initialize()

    async def handler(arguments: dict[str, Any], context: object) -> MCPToolResult:
        del context
        result = work(arguments)
        return MCPToolResult(
            content=[{"type": "text", "text": str(result)}], structured_content=result
        )

    paid = create_payment_wrapper(server, PaymentWrapperConfig(accepts=[_REQUIREMENTS]))(handler)

    async def call(arguments: dict[str, Any], meta: dict[str, Any]) -> CallToolResult:
        answer: Any = await paid(arguments, {"_meta": meta, "toolName": "x402"})  # type: ignore[misc, arg-type]
        return CallToolResult(
            content=answer.content,
            structured_content=answer.structured_content,
            is_error=answer.is_error,
            _meta=answer.meta,
        )

    return call
