"""Those who set limits and open doors: newcomers, operators, the treasurer, the admin.

Boundary: their calls to the platform. Each class is a role; the platform judges who has it.
"""

from collections.abc import Sequence
from typing import Literal

from farthing.clients.allowances import Agreeing
from farthing.clients.charges import Charged
from farthing.clients.pins import Pinning
from farthing.clients.reconciling import Reconciling
from farthing.clients.statements import AccountHolder
from farthing.clients.transport import Connection
from farthing.clients.trial_balance import whole_trial_balance
from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.keys import PublicKey, Signer
from farthing.protocol.messages.accounts import TrialBalance
from farthing.protocol.messages.agents import (
    APPROVE_REGISTRATION,
    ENROL_ORGANISATION,
    FREEZE,
    GET_REGISTRATION,
    LIST_AGENTS,
    LIST_KEYS,
    REGISTER_AGENT,
    REVOKE_KEY,
    ROTATE_KEY,
    UNFREEZE,
    Agents,
    ApproveRegistration,
    EnrolOrganisation,
    Freeze,
    FreezeState,
    GetRegistration,
    Keys,
    KeyState,
    ListAgents,
    ListKeys,
    PublicJwk,
    RegisterAgent,
    Registration,
    RevokeKey,
    RotateKey,
    Unfreeze,
)
from farthing.protocol.messages.authority import (
    GET_AUTHORITY,
    REVOKE_AUTHORITY,
    SET_AUTHORITY,
    Authority,
    GetAuthority,
    GrantView,
    RevokeAuthority,
    SetAuthority,
)
from farthing.protocol.messages.payments import (
    CREATE_TOP_UP,
    LIST_TOP_UPS,
    CreateTopUp,
    ListTopUps,
    ProcessorName,
    TopUps,
    TopUpView,
)
from farthing.protocol.messages.trails import GET_OUTCOME, GetOutcome, OutcomeView
from farthing.protocol.messages.treasury import (
    GET_PARTNER,
    LIST_CREDIT_LOTS,
    SET_GRACE,
    SET_PARTNER,
    CreditLots,
    GetPartner,
    GraceView,
    ListCreditLots,
    PartnerView,
    SetGrace,
    SetPartner,
)
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.wire import Money, Role

__all__ = ["Admin", "Member", "Newcomer", "Operator", "public_jwk"]


class Newcomer:
    """Somebody with a key that nobody at the platform holds yet.

    Registering again with the same key and name is the same registration: the idempotency key is
    made of the key's thumbprint.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def enrol(self, kind: Literal["operator", "vendor"], name: str) -> Registration:
        """Enrol an organisation; the admin approves it.

        Raises:
            Refused: `already_registered`.
        """
        key = _signer(self.connection).public
        return await self.connection.call(
            ENROL_ORGANISATION,
            EnrolOrganisation(
                kind=kind,
                name=name,
                key=public_jwk(key),
                idempotency_key=f"enrol-{key.thumbprint}",
            ),
        )

    async def register(self, operator_id: str, name: str) -> Registration:
        """Register an agent under an operator, who approves it.

        Raises:
            Refused: `not_found` where there is no such operator, `already_registered`.
        """
        key = _signer(self.connection).public
        return await self.connection.call(
            REGISTER_AGENT,
            RegisterAgent(
                operator_id=operator_id,
                name=name,
                key=public_jwk(key),
                idempotency_key=f"register-{key.thumbprint}",
            ),
        )

    def member(self, registration: Registration) -> Connection:
        """The connection of the principal that the newcomer has become."""
        mine = self.connection
        return Connection(
            mine.url,
            signer=mine.signer,
            principal=registration.principal_id,
            http=mine.http,
            timeout_s=mine.timeout_s,
            transport=mine.transport,
            clock=mine.clock,
            entropy=mine.entropy,
            sleep=mine.sleep,
        )


class Member(Pinning):
    """What every registered principal can do."""

    async def registration(self) -> Registration:
        """Who the caller is to the platform, and whether it may act."""
        return await self.connection.call(GET_REGISTRATION, GetRegistration())

    async def rotate_key(self, new: Signer, *, replaces: str = "", key: str = "") -> KeyState:
        """Replace the caller's key; the connection goes on signing with the old one, refused.

        Args:
            new: the key that takes its place.
            replaces: the thumbprint of a metering key to replace instead.
            key: idempotency key.
        """
        possession = sign_detached(
            new,
            Typ.ROTATION,
            canonical_bytes({
                "new": new.thumbprint,
                "old": replaces or _signer(self.connection).thumbprint,
                "principal": self.connection.principal,
            }),
        )  # fmt: skip
        return await self.connection.call(
            ROTATE_KEY,
            RotateKey(
                key=public_jwk(new.public),
                possession=possession,
                replaces=replaces,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def keys(self, limit: int = 50) -> Keys:
        """The caller's keys with what each is for: those in force first, then the newest."""
        return await self.connection.call(LIST_KEYS, ListKeys(limit=limit))

    async def partner(self, subject_id: str) -> PartnerView:
        """Who shares in what is agreed with a vendor, or on a listing, from now on.

        Raises:
            Refused: `not_found`: nobody does, or it does not concern the caller.
        """
        return await self.connection.call(GET_PARTNER, GetPartner(subject_id=subject_id))

    async def revoke_key(self, principal_id: str, thumbprint: str, *, key: str = "") -> KeyState:
        """Revoke a key at once: one's own, an agent's of one's own, or as admin anybody's."""
        return await self.connection.call(
            REVOKE_KEY,
            RevokeKey(
                principal_id=principal_id,
                key_thumbprint=thumbprint,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def outcome(self, operation: str, key: str) -> OutcomeView:
        """What became of a call whose reply was lost."""
        return await self.connection.call(GET_OUTCOME, GetOutcome(operation=operation, key=key))


class _Approver(Member):
    async def approve(self, principal_id: str, *, key: str = "") -> Registration:
        """Let a pending principal act."""
        return await self.connection.call(
            APPROVE_REGISTRATION,
            ApproveRegistration(
                principal_id=principal_id, idempotency_key=key or self.connection.new_key()
            ),
        )

    async def freeze(self, principal_id: str, reason: str, *, key: str = "") -> FreezeState:
        """Stop a principal from placing holds, from its next call on."""
        return await self.connection.call(
            FREEZE,
            Freeze(
                principal_id=principal_id,
                reason=reason,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def unfreeze(self, principal_id: str, reason: str, *, key: str = "") -> FreezeState:
        """Let a frozen principal act again."""
        return await self.connection.call(
            UNFREEZE,
            Unfreeze(
                principal_id=principal_id,
                reason=reason,
                idempotency_key=key or self.connection.new_key(),
            ),
        )


class Operator(_Approver, AccountHolder, Charged, Reconciling, Agreeing):
    """An organisation whose agents buy: it approves them, sets their limits, stops them."""

    role = Role.OPERATOR

    async def set_authority(
        self,
        agent_id: str,
        *,
        per_call_max: Money,
        per_day_max: Money,
        vendors_allow: Sequence[str] = (),
        vendors_deny: Sequence[str] = (),
        capabilities_allow: Sequence[str] = (),
        capabilities_deny: Sequence[str] = (),
        expires_at: str = "",
        key: str = "",
    ) -> GrantView:
        """Set what an agent may spend of one asset; replaces its grant for that asset."""
        return await self.connection.call(
            SET_AUTHORITY,
            SetAuthority(
                agent_id=agent_id,
                per_call_max=per_call_max,
                per_day_max=per_day_max,
                vendors_allow=tuple(vendors_allow),
                vendors_deny=tuple(vendors_deny),
                capabilities_allow=tuple(capabilities_allow),
                capabilities_deny=tuple(capabilities_deny),
                expires_at=expires_at,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def revoke_authority(self, agent_id: str, asset: str, *, key: str = "") -> GrantView:
        """Take an agent's authority for one asset away."""
        return await self.connection.call(
            REVOKE_AUTHORITY,
            RevokeAuthority(
                agent_id=agent_id, asset=asset, idempotency_key=key or self.connection.new_key()
            ),
        )

    async def authority(self, agent_id: str) -> Authority:
        """What an agent may spend and what remains today."""
        return await self.connection.call(GET_AUTHORITY, GetAuthority(agent_id=agent_id))

    async def agents(self, limit: int = 50, cursor: str = "") -> Agents:
        """The operator's agents, oldest first, and after them who asks to be one.

        Args:
            limit: How many at most.
            cursor: Where a page ended.
        """
        return await self.connection.call(LIST_AGENTS, ListAgents(limit=limit, cursor=cursor))

    async def create_top_up(
        self, amount: Money, *, processor: ProcessorName = "manual", key: str = ""
    ) -> TopUpView:
        """Announce money; `url` in the answer is where a person pays it, if anywhere.

        Raises:
            Refused: `processor_failed`: call again with the same key.
        """
        return await self.connection.call(
            CREATE_TOP_UP,
            CreateTopUp(
                amount=amount,
                processor=processor,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def top_ups(self, limit: int = 50, cursor: str = "") -> TopUps:
        """The operator's top-ups, newest first; `cursor` is where a page ended."""
        return await self.connection.call(LIST_TOP_UPS, ListTopUps(limit=limit, cursor=cursor))

    async def credit_lots(self, limit: int = 50, cursor: str = "") -> CreditLots:
        """The operator's credit lots, newest first; `cursor` is where a page ended."""
        ask = ListCreditLots(limit=limit, cursor=cursor)
        return await self.connection.call(LIST_CREDIT_LOTS, ask)

    async def set_grace(self, amount: Money, *, key: str = "") -> GraceView:
        """Choose less grace than the treasurer has granted."""
        return await self.connection.call(
            SET_GRACE,
            SetGrace(
                organisation_id=self.connection.principal,
                amount=amount,
                idempotency_key=key or self.connection.new_key(),
            ),
        )


class Admin(_Approver):
    """The platform's admin: approves organisations, freezes anybody, names partners."""

    role = Role.ADMIN

    async def set_partner(
        self, subject_id: str, partner_id: str, ppm: int, *, key: str = ""
    ) -> PartnerView:
        """Name the partner of a vendor or listing, and its share in millionths; 0 is none."""
        return await self.connection.call(
            SET_PARTNER,
            SetPartner(
                subject_id=subject_id,
                partner_id=partner_id,
                ppm=ppm,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def trial_balance(self, at_seq: int = 0) -> TrialBalance:
        """As `Treasurer.trial_balance`."""
        return await whole_trial_balance(self.connection, at_seq)


def public_jwk(key: PublicKey) -> PublicJwk:
    """A public key in the form of the wire."""
    jwk = key.jwk()
    if jwk["kty"] == "OKP":
        return PublicJwk(kty="OKP", crv="Ed25519", x=jwk["x"])
    return PublicJwk(kty="EC", crv="P-256", x=jwk["x"], y=jwk["y"])


def _signer(connection: Connection) -> Signer:
    if connection.signer is None:
        raise ValueError("this call needs a key")
    return connection.signer
