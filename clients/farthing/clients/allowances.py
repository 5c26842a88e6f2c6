"""Allowances: what either side of an agreement proposes, approves and looks at.

Boundary: asks and answers; who may approve what is the platform's to say.
Source: spec/metering.md#allowances.
"""

from collections.abc import Mapping
from typing import Literal

from farthing.clients.transport import Connection
from farthing.protocol.messages.allowances import (
    APPROVE_ALLOWANCE,
    GET_ALLOWANCE,
    PROPOSE_ALLOWANCE,
    Allowance,
    AllowanceUse,
    ApproveAllowance,
    GetAllowance,
    ProposeAllowance,
)
from farthing.protocol.wire import usage_of

__all__ = ["Agreeing", "Limiting"]


class Limiting:
    """What every party to an agreement can ask of its allowance."""

    connection: Connection

    async def allowance(self, agreement_id: str) -> AllowanceUse:
        """What may be used under an agreement, and what of it was used."""
        return await self.connection.call(GET_ALLOWANCE, GetAllowance(agreement_id=agreement_id))

    async def propose_allowance(
        self,
        agreement_id: str,
        *,
        per_day: Mapping[str, int] | None = None,
        in_all: Mapping[str, int] | None = None,
        enforcement: Literal["refuse", "report"] = "refuse",
        expires_at: str = "",
        key: str = "",
    ) -> Allowance:
        """Propose limits by meter to the other side; without any, that there be none."""
        ask = ProposeAllowance(
            agreement_id=agreement_id,
            per_day=usage_of(per_day or {}),
            in_all=usage_of(in_all or {}),
            enforcement=enforcement,
            expires_at=expires_at,
            idempotency_key=key or self.connection.new_key(),
        )
        return await self.connection.call(PROPOSE_ALLOWANCE, ask)


class Agreeing(Limiting):
    """What the organisation of a side can do besides."""

    async def approve_allowance(
        self, agreement_id: str, allowance_id: str, *, key: str = ""
    ) -> Allowance:
        """Put the other side's proposal in force."""
        ask = ApproveAllowance(
            agreement_id=agreement_id,
            allowance_id=allowance_id,
            idempotency_key=key or self.connection.new_key(),
        )
        return await self.connection.call(APPROVE_ALLOWANCE, ask)
