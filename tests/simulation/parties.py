"""Who lives in a simulated market, and how what they ask is signed, sent, and sent again.

Boundary: looks at the auditor's books for what there is and draws from the chance it is handed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any, Final

from msgspec import structs

from farthing.identity.callers import Assurance, Caller
from farthing.protocol.canonical import Json, canonical_bytes, sha256_hex
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages import agents
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.times import DAY_US, SECOND_US
from farthing.protocol.wire import Operation, Role
from farthing.server.market import command_of
from farthing.settlement.engine.commands import PLATFORM, Command, Kept, platform_command
from farthing.settlement.engine.genesis import GENESIS, Genesis, StaffKey
from farthing.settlement.engine.principals import Named
from tests.papers import public_jwk, signing_key
from tests.simulation.auditor import Auditor

__all__ = ["ARGS", "ASSETS", "BODY", "Crowd", "Party", "signed"]

ASSETS: Final = ("USD", "USD", "JPY", "XTS")
PROOF_US: Final = 30 * SECOND_US
ARGS: Final = "a" * 64
BODY: Final = "b" * 64


@cache
def _key(name: str) -> PrivateKey:
    return signing_key(f"simulated {name}")


@dataclass(slots=True)
class Party:
    """Somebody who signs. `keys` are all it ever had, the newest last, `machines` for metering."""

    principal_id: str
    organisation_id: str
    role: Role
    keys: list[PrivateKey]
    machines: list[PrivateKey] = field(default_factory=list)

    def caller(self, key: PrivateKey | None = None) -> Caller:
        return Caller(
            principal_id=self.principal_id,
            organisation_id=self.organisation_id,
            role=self.role,
            assurance=Assurance.SIGNED_BODY,
            key_thumbprint=(key or self.keys[-1]).thumbprint,
        )


@dataclass(slots=True)
class Crowd:
    """The parties of one life, and all that was ever sent."""

    books: Auditor
    fee_ppm: int = 25_000
    open_enrolment: bool = False
    chance: Random = field(default_factory=Random)
    now_us: int = 0
    step: str = ""
    drawn: int = 0
    admin: Party = field(init=False)
    treasurer: Party = field(init=False)
    operators: list[Party] = field(default_factory=list)
    vendors: list[Party] = field(default_factory=list)
    buyers: list[Party] = field(default_factory=list)
    sent: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin, self.treasurer = (self._staff(role) for role in (Role.ADMIN, Role.TREASURER))

    def genesis(self) -> Command:
        """The first command."""
        staff = tuple(
            StaffKey(role=each.role, thumbprint=key.thumbprint, jwk=key.public.jwk())
            for each in (self.admin, self.treasurer)
            for key in each.keys
        )
        body = Genesis(staff=staff, fee_ppm=self.fee_ppm, open_enrolment=self.open_enrolment)
        return platform_command(GENESIS, body)

    def at(self, step: str, chance: Random, now_us: int) -> None:
        """Everything until the next call is drawn from this chance, at this time."""
        self.step, self.chance, self.drawn = step, chance, 0
        # Callers go by what the platform last said; after a clock was set back, few go by that.
        self.now_us = now_us if chance.random() < 0.1 else max(now_us, self.books.at_us)

    # Who there is

    def _staff(self, role: Role) -> Party:
        key = _key(role.value)
        return Party(derive_id("stf", key.thumbprint), PLATFORM, role, [key])

    def enrol(self, kind: Any) -> Command:
        """A new organisation."""
        key = self._new_key()
        party_id = derive_id("org", key.thumbprint)
        party = Party(party_id, party_id, Role(kind), [key])
        (self.operators if kind == "operator" else self.vendors).append(party)
        ask = agents.EnrolOrganisation(
            kind=kind, name="Somebody", key=public_jwk(key), idempotency_key=self._id()
        )
        return self._named(key, agents.ENROL_ORGANISATION, ask)

    def register(self, operator: Party) -> Command:
        """A new agent of an operator."""
        key = self._new_key()
        party_id = derive_id("agt", key.thumbprint)
        self.buyers.append(Party(party_id, operator.principal_id, Role.BUYER, [key]))
        ask = agents.RegisterAgent(
            operator_id=operator.principal_id,
            name="Some agent",
            key=public_jwk(key),
            idempotency_key=self._id(),
        )
        return self._named(key, agents.REGISTER_AGENT, ask)

    def _named(self, key: PrivateKey, operation: Operation[Any, Any], ask: Any) -> Command:
        newcomer = Caller(
            role=Role.NEWCOMER,
            assurance=Assurance.SIGNED_BODY,
            key_thumbprint=key.thumbprint,
        )
        commitment = sha256_hex(key.thumbprint.encode())
        row = {"commitment": commitment, "salt": "salt", "value": ask.name}
        kept = (Kept(table="personal", row=row),)
        body = Named(ask=ask, name_sha256=commitment)
        return self._ask(newcomer, operation, ask, body=body, kept=kept)

    def _approve(self, by: Party, party: Party) -> Command:
        ask = agents.ApproveRegistration(
            principal_id=party.principal_id, idempotency_key=self._id()
        )
        return self._ask(by.caller(), agents.APPROVE_REGISTRATION, ask)

    def _operator_of(self, party: Party) -> Party:
        return next(each for each in self.operators if each.principal_id == party.organisation_id)

    def _of(self, parties: Sequence[Party], principal_id: str) -> Party:
        """A party by its id, now and then another one."""
        if self.chance.random() < 0.03:
            return self.chance.choice(parties)
        return next(each for each in parties if each.principal_id == principal_id)

    def _hand(self, vendor: Party) -> PrivateKey:
        """The key that a vendor meters with now: a machine's where one is in force."""
        keys = self.books.things["key"]
        at_work = [
            key for key in vendor.machines if keys.get(key.thumbprint, {}).get("status") == "active"
        ]
        if not at_work or self.chance.random() < 0.3:
            return vendor.keys[-1]
        return self.chance.choice(vendor.machines if self.chance.random() < 0.05 else at_work)

    # How it is sent

    def heal(self) -> None:
        """Everybody signs with the key that the books say is in force."""
        keys = self.books.things["key"]
        for party in self._everybody():
            in_force = [
                key for key in party.keys if keys.get(key.thumbprint, {}).get("status") == "active"
            ]
            if in_force and party.keys[-1] is not in_force[-1]:
                party.keys.remove(in_force[-1])
                party.keys.append(in_force[-1])

    def _again(self) -> Command:
        """Something sent before: as it was, or signed anew, or with another request."""
        newest = self.chance.random() < 0.6
        command = self.chance.choice(self.sent[-12:] if newest else self.sent)
        choice = self.chance.random()
        if choice < 0.2:
            return command
        by = replace(command.by, proof_jti=self._id(), proof_expires_at_us=self.now_us + PROOF_US)
        # A document in it was signed with the very key that the request is signed with.
        if by.principal_id and not command.facts:
            parties = (*self._everybody(), self.admin, self.treasurer)
            party = next(each for each in parties if each.principal_id == by.principal_id)
            by = replace(by, key_thumbprint=party.keys[-1].thumbprint)
        again = structs.replace(command, by=by)
        if choice > 0.9:
            args = {**command.args_sha256, "reference": sha256_hex(by.proof_jti.encode())}
            again = structs.replace(
                again, args_sha256=args, request_sha256=sha256_hex(by.proof_jti.encode())
            )
        return again

    def _spoilt(self, command: Command) -> Command:
        """Now and then a command that is late, or signed with a key that is no longer in force."""
        choice, by = self.chance.random(), command.by
        if choice < 0.02:
            by = replace(by, proof_expires_at_us=self.now_us - self.chance.randint(0, DAY_US))
        elif choice < 0.04 and not command.facts:
            for party in self._everybody():
                if party.principal_id == by.principal_id:
                    key = self.chance.choice((*party.keys, *party.machines))
                    by = replace(by, key_thumbprint=key.thumbprint)
        return structs.replace(command, by=by) if by is not command.by else command

    def _ask(
        self, caller: Caller, operation: Operation[Any, Any], ask: object, **planned: Any
    ) -> Command:
        proven = replace(caller, proof_jti=self._id(), proof_expires_at_us=self.now_us + PROOF_US)
        return command_of(proven, operation, ask, **planned)

    def _id(self) -> str:
        self.drawn += 1
        return f"{self.step}-{self.drawn:04d}-simulated"

    def _new_key(self) -> PrivateKey:
        # Few names, so that keys are made once a process and not once a life.
        known = {
            key.thumbprint for each in self._everybody() for key in (*each.keys, *each.machines)
        }
        number = len(known)
        while (key := _key(str(number))).thumbprint in known:
            number += 1
        return key

    def _everybody(self) -> tuple[Party, ...]:
        return (*self.operators, *self.vendors, *self.buyers)

    def _asset(self) -> str:
        return self.chance.choice(ASSETS)

    def _frozen(self, party: Party) -> bool:
        return bool(self.books.things["principal"].get(party.principal_id, {}).get("frozen_by"))

    def _status(self, principal_id: str) -> str:
        return str(self.books.things["principal"].get(principal_id, {}).get("status", ""))

    def _any(self, noun: str, *, waiting: float = 0) -> dict[str, Any] | None:
        """Some thing of a noun, as likely as said one that still waits."""
        if waiting and self.chance.random() < waiting:
            things = self.books.waiting[noun]
        else:
            things = self.books.things[noun]
        return self.chance.choice(list(things.values())) if things else None


def signed(key: PrivateKey, typ: Typ, document: dict[str, Json]) -> str:
    return sign_detached(key, typ, canonical_bytes(document))
