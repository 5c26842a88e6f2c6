"""A vendor's door at no price: all that it checks and says of a session's call, kept nowhere."""

from typing import Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult

from farthing.clients.counter import Sold
from farthing.clients.documents import arguments_sha256
from farthing.clients.entitlements import Vouched, check_entitled, check_vouched
from farthing.clients.payable import Making, Payable, delivered
from farthing.clients.wares import Cap
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.errors import Refusal
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.proofs import Entitlement
from farthing.protocol.x402 import PAYMENT, Used, read_payment, used
from farthing.server.engine import now_us

__all__ = ["FreeDoor"]


class FreeDoor:
    """The door.

    Args:
        payable: What is behind it.
        keys: The platform's, pinned.
        platform, vendor_id: Who must have entitled whom.
    """

    def __init__(self, payable: Payable, keys: PlatformKeys, platform: str, vendor_id: str) -> None:
        self._payable = payable
        self._keys = keys
        self._platform = platform
        self._vendor_id = vendor_id
        self._entitled: dict[str, Entitlement] = {}

    def check(self, context: Context[Any, Any]) -> tuple[Entitlement, Vouched]:
        """Check a call's signatures as `counter` does: an entitlement's once."""
        params = context.request_context.params or {}
        presented = read_payment((params.get("_meta") or {}).get(PAYMENT), self._platform)
        assert not isinstance(presented, Refusal), presented
        entitlement = self._entitled.get(presented.entitlement) or self._entitlement(
            presented.entitlement
        )
        vouched = check_vouched(
            presented,
            entitlement,
            mac_key=b"",
            listing_id=entitlement.listing_id,
            args_sha256=arguments_sha256(params.get("arguments") or {}),
            now_us=now_us(),
        )
        assert not isinstance(vouched, Refusal), vouched
        return entitlement, vouched

    async def sell(self, pdf: str, context: Context[Any, Any]) -> CallToolResult:
        """Check, work, hold the result against its schema, digest it, and say what was used."""
        entitlement, vouched = self.check(context)
        making = Making({"pdf": pdf})
        cap = Cap(entitlement.per_call_units)
        made = await self._payable.run(making, self._payable.shape, cap)
        said = Used(
            session_id=str(entitlement.session_id),
            seq=vouched.voucher.seq,
            usage=made.usage,
            amount_units=0,
            spent_units=0,
            result_sha256=sha256_hex(made.result),
        )
        response = used(said, payer=entitlement.buyer_id, platform=self._platform)
        return delivered(Sold(made.result, made.content, response), making.answer)

    def _entitlement(self, token: str) -> Entitlement:
        found = check_entitled(
            token,
            platform_key_of=self._keys.platform.get,
            platform=self._platform,
            vendor_id=self._vendor_id,
            now_us=now_us(),
        )
        assert not isinstance(found, Refusal), found
        self._entitled[token] = found
        return found
