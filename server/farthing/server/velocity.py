"""How fast callers call: quotas that refill evenly, and what proven callers have of them.

Boundary: counts in the memory of one front end, where nothing is written and nobody is asked; who
calls, admission has proven. Source: spec/transport-mcp.md#velocity.
"""

from ipaddress import IPv6Address
from typing import Final

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Role

__all__ = ["Headers", "Quota", "Velocity", "network_of", "told"]

Headers = list[tuple[bytes, bytes]]

_NAMES_MAX: Final = 10_000
# So many seconds' worth may come at once.
_CALLS_S: Final = 2
_REFUSALS_S: Final = 200
# One agent has at most one part in so many of what its organisation's agents have.
_SHARE: Final = 2


class Quota:
    """How often each name may still act, refilled evenly; those longest unused are forgotten.

    Args:
        label: what it is called in headers.
        most: how much there is of it at most.
        window_s: the time in which it refills.
    """

    __slots__ = ("_before", "_label", "_most", "_step_us", "_until_us", "_whole_us", "policy")

    def __init__(self, label: bytes, most: int, window_s: int) -> None:
        self._label = label
        self._most = most
        self._step_us = max(window_s * SECOND_US // most, 1)
        self._whole_us = most * self._step_us
        # When each name's is whole again: those met last, and those met before them.
        self._until_us: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self.policy = b'"%s";q=%d;w=%d' % (label, most, window_s)

    def take(self, name: str, now_us: int, count: int = 1) -> tuple[bool, int]:
        """Take so many if they are there, and say how many are left.

        A whole quota is enough for anything, also where one was taken of it before.
        """
        used_us = self._used_us(name, now_us)
        # A clock that is set back makes nobody wait for more than a whole quota.
        used_us = min(used_us, self._whole_us)
        taken_us = used_us + (self._step_us if count == 1 else self._cost_us(count))
        enough = taken_us <= self._whole_us
        if not enough:
            taken_us = used_us
        self._until_us[name] = now_us + taken_us
        if len(self._until_us) >= _NAMES_MAX // 2:
            self._forget()
        return enough, (self._whole_us - taken_us) // self._step_us

    def wait_us(self, name: str, now_us: int) -> int:
        """How long until there is one to take; 0 where there is."""
        over_us = self._used_us(name, now_us) + self._step_us - self._whole_us
        return min(over_us, self._whole_us) if over_us > 0 else 0

    def spend(self, name: str, now_us: int) -> None:
        """Take one whether it is there or not; who owes a whole quota owes no more."""
        used_us = self._used_us(name, now_us) + self._step_us
        self._until_us[name] = now_us + min(used_us, 2 * self._whole_us)
        if len(self._until_us) >= _NAMES_MAX // 2:
            self._forget()

    def left(self, count: int) -> bytes:
        """What is left, as an item of `RateLimit` (draft-ietf-httpapi-ratelimit-headers)."""
        refill_s = -((count - self._most) * self._step_us // SECOND_US)
        return b'"%s";r=%d;t=%d' % (self._label, count, refill_s)

    def _used_us(self, name: str, now_us: int) -> int:
        until_us = self._until_us.get(name)
        if until_us is None:
            until_us = self._before.get(name, 0)
        used_us = until_us - now_us
        if used_us > 2 * self._whole_us:
            # Nobody owes as much: the clock was set back.
            used_us = self._whole_us
            self._until_us[name] = now_us + used_us
        return max(used_us, 0)

    def _cost_us(self, count: int) -> int:
        return min(count, max(self._most - 1, 1)) * self._step_us

    def _forget(self) -> None:
        self._before, self._until_us = self._until_us, {}


def network_of(address: str) -> str:
    """Whose an address is: who has one of IPv6 has 2^64 of them (RFC 6177)."""
    try:
        given = IPv6Address(address)
    except ValueError:
        return address
    if given.ipv4_mapped is not None:
        return str(given.ipv4_mapped)
    return given.packed[:8].hex()


def told(policy: bytes, left: bytes) -> Headers:
    """A quota and what is left of it, as headers."""
    return [(b"ratelimit-policy", policy), (b"ratelimit", left)]


class Velocity:
    """What every proven caller may still do at this front end.

    An organisation's agents share one quota, of which no agent takes more than half. A key of the
    organisation itself has one of its own, as large, so that no agent of it can keep it from
    freezing that agent.

    Args:
        calls_per_second: calls of an organisation's agents, and of each key of its own.
        refusals_per_second: refusals that are remembered, shared alike.
    """

    def __init__(self, calls_per_second: int = 8_000, refusals_per_second: int = 10) -> None:
        self._calls = _Shares(calls_per_second, _CALLS_S)
        self._refusals = _Shares(refusals_per_second, _REFUSALS_S)

    def take(self, caller: Caller, now_us: int, count: int = 1) -> tuple[bool, Headers]:
        """Count calls of a proven caller.

        Returns:
            Whether there were as many left, and what is left of the scarcer quota, as headers.
        """
        calls = self._calls
        # By its key: what is done with a key that was stolen and revoked is not its holder's doing.
        if caller.role is not Role.BUYER:
            allowed, left = calls.own.take(caller.key_thumbprint, now_us, count)
            return allowed, told(calls.own.policy, calls.own.left(left))
        allowed, left = calls.agents.take(caller.key_thumbprint, now_us, count)
        # What its own share refuses takes nothing of what its organisation has.
        if allowed:
            allowed, shared = calls.organisations.take(caller.organisation_id, now_us, count)
            if shared < left:
                return allowed, told(calls.policy, calls.organisations.left(shared))
        return allowed, told(calls.policy, calls.agents.left(left))

    def refuse_write(self, caller: Caller, now_us: int) -> Refusal | None:
        """Refuse a write of who has been refused too often, before it claims its key.

        A refusal that is remembered is a record, and costs its caller nothing else.
        """
        refusals, name = self._refusals, caller.principal_id
        if caller.role is not Role.BUYER:
            wait_us = refusals.own.wait_us(name, now_us) if name else 0
        else:
            wait_us = refusals.agents.wait_us(name, now_us) or refusals.organisations.wait_us(
                caller.organisation_id, now_us
            )
        if not wait_us:
            return None
        text = "Too many calls were refused for good; wait before the next write."
        wait_s = -(-wait_us // SECOND_US)
        return refuse(Code.RATE_LIMITED, message=text, retry_after_s=wait_s)

    def refused(self, caller: Caller, code: Code, now_us: int) -> None:
        """Count a write that was refused, if that is remembered."""
        if not code.remembered or not caller.principal_id:
            return
        if caller.role is not Role.BUYER:
            self._refusals.own.spend(caller.principal_id, now_us)
        else:
            # What was on its way beyond its own share takes nothing of what its organisation has.
            if not self._refusals.agents.wait_us(caller.principal_id, now_us):
                self._refusals.organisations.spend(caller.organisation_id, now_us)
            self._refusals.agents.spend(caller.principal_id, now_us)


class _Shares:
    """The quotas of keys of organisations, of agents, and of all agents of an organisation."""

    __slots__ = ("agents", "organisations", "own", "policy")

    def __init__(self, per_second: int, window_s: int) -> None:
        whole = per_second * window_s
        self.own = Quota(b"key", whole, window_s)
        self.agents = Quota(b"key", per_second // _SHARE * window_s, window_s)
        self.organisations = Quota(b"organisation", whole, window_s)
        self.policy = self.agents.policy + b", " + self.organisations.policy
