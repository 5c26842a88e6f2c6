"""The independent auditor of a life: reads journal lines as plain JSON and judges every one.

Boundary: imports nothing from farthing. It has its own ledger, its own idea of who may do what
(`rules`) and of what things cost (`prices`); where engine and auditor differ, one of them is wrong.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from tests.entries import document_in, head_of

__all__ = [
    "Auditor",
    "Finding",
    "Json",
    "answered",
    "day",
    "leaf",
    "need",
    "net_of",
    "one_of",
    "root_of",
    "total",
]

Json = dict[str, Any]

PLATFORM: Final = "platform"
# Whose idempotency keys are the signing key's own.
NEWCOMERS: Final = frozenset({"enrol_organisation", "register_agent"})
_WAITING: Final = frozenset({"open", "closing", "pending", "needs_evidence", "requested", "sent"})
MAY_GO_NEGATIVE: Final = frozenset({"external_clearing", "promotion", "receivable"})


class Finding(AssertionError):
    """Something that must not be."""


def need(holds: object, says: str) -> None:
    """Raise a finding unless something holds."""
    if not holds:
        raise Finding(says)


class Auditor:
    """What the journal so far comes to.

    Args:
        judge: the rules that the next record is held against, before it is taken in.

    Attributes:
        lines: the records' entries, as read.
        accounts: name to [debits pending, debits posted, credits pending, credits posted].
        things: noun to id to document, as the records left them.
        outcomes: (who, operation, key) to the record's place.
        burnt: proofs used, as (key, id).
        spent: (grant, day) to units.
        changed_at_us: when a thing last changed, by its id.
        calls: what every call that was taken costs, by session and number.
        frozen_at_us: since when a principal has been frozen by anybody.
        used: quantities by agreement and day, counted while the agreement has an allowance.
    """

    def __init__(self, judge: "Callable[[Auditor, Json], None]") -> None:
        self._judge = judge
        self.lines: list[bytes] = []
        self.records: list[Json] = []
        self.prev = hashlib.sha256(b"farthing journal").hexdigest()
        self.at_us = 0
        self.accounts: dict[str, list[int]] = {}
        self.things: dict[str, dict[str, Json]] = defaultdict(dict)
        self.documents: dict[str, Json] = {}
        self.outcomes: dict[tuple[str, str, str], int] = {}
        self.burnt: set[tuple[str, str]] = set()
        self.spent: dict[tuple[str, str], int] = defaultdict(int)
        self.changed_at_us: dict[str, int] = {}
        self.calls: dict[str, dict[int, int]] = defaultdict(dict)
        self.frozen_at_us: dict[str, int] = {}
        self.used: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        # What waits for time: noun to id.
        nouns = ("hold", "charge", "dispute", "session", "top_up", "payout")
        self.waiting: dict[str, dict[str, Json]] = {noun: {} for noun in nouns}

    @property
    def seq(self) -> int:
        """How many records were read."""
        return len(self.lines)

    def available(self, name: str) -> int:
        """What can be debited from an account."""
        counters = self.accounts.get(name, [0, 0, 0, 0])
        return counters[3] - counters[1] - counters[0]

    def posted(self, name: str) -> int:
        """An account's settled balance."""
        counters = self.accounts.get(name, [0, 0, 0, 0])
        return counters[3] - counters[1]

    def read(self, lines: Iterable[bytes]) -> None:
        """Judge and take in the next records."""
        for line in lines:
            record = document_in(line)
            try:
                self._follows(record)
                self._asked_once(record)
                self._judge(self, record)
                self._apply(record)
                self._sums(record)
            except (LookupError, TypeError, ValueError) as error:
                raise Finding(f"record {record.get('seq')} is no record: {error!r}") from error
            except Finding as error:
                raise Finding(f"record {record['seq']} ({record['operation']}): {error}") from error
            self.prev = head_of(line)
            self.lines.append(line)
            self.records.append(record)

    def _follows(self, record: Json) -> None:
        need(record["prev"] == self.prev, "the chain is broken")
        need(record["seq"] == self.seq + 1, "it is out of its place")
        need(record["at_us"] >= self.at_us, "time went back")
        self.at_us = record["at_us"]

    def _asked_once(self, record: Json) -> None:
        by = record["by"]
        if request := record.get("request"):
            scope = (_who(record), record["operation"], request["key"])
            need(scope not in self.outcomes, "an idempotency key has two outcomes")
            self.outcomes[scope] = record["seq"]
        if jti := by.get("proof_jti"):
            proof = (by["key_thumbprint"], jti)
            need(proof not in self.burnt, "a proof was used twice")
            need(by["proof_expires_at_us"] > record["at_us"], "the proof had expired")
            self.burnt.add(proof)

    def _apply(self, record: Json) -> None:
        effects = {"moved", "counted", "changed"} & record.keys()
        need(not effects or "refused" not in record, "a refusal did something")
        for moved in record.get("moved", ()):
            self._move(moved)
        for counted in record.get("counted", ()):
            self.spent[counted["grant_id"], counted["day"]] += int(counted["units"])
            need(self.spent[counted["grant_id"], counted["day"]] >= 0, "less than nothing is spent")
        if "refused" not in record:
            for name in ("rate_card", "terms"):
                if document := record.get("facts", {}).get(name):
                    self.documents[_sha256(document)] = document
        for change in record.get("changed", ()):
            noun, after = change["noun"], change["after"]
            if noun == "position":
                self._use(record, change["id"], after)
            self.things[noun][change["id"]] = after
            self.changed_at_us[change["id"]] = record["at_us"]
            if noun in self.waiting:
                waits = after["status"] in _WAITING
                if waits:
                    self.waiting[noun][change["id"]] = after
                else:
                    self.waiting[noun].pop(change["id"], None)
            if noun == "principal" and after.get("frozen_by"):
                self.frozen_at_us.setdefault(change["id"], record["at_us"])
            elif noun == "principal":
                self.frozen_at_us.pop(change["id"], None)
        if record["operation"] == "report_usage" and "refused" not in record:
            self._take_calls(record)

    def _use(self, record: Json, agreement_id: str, position: Json) -> None:
        if "limits" in self.things["allowance"].get(agreement_id, {}):
            before = self.things["position"].get(agreement_id, {})
            counted_at_us = record["at_us"]
            if record["operation"] == "correct_usage":
                counted_at_us = one_of(record, "charge")["captured_at_us"]
                limits = self.things["allowance"][agreement_id]["limits"]
                if counted_at_us <= limits["approved_at_us"]:
                    return
            used = self.used[agreement_id, day(counted_at_us)]
            for meter, quantity in position.items():
                more = int(quantity) - int(before.get(meter, 0))
                used[meter] = max(0, used.get(meter, 0) + more)

    def _take_calls(self, record: Json) -> None:
        rejected = {place for place, *_ in record["decided"]["rejected"]}
        calls = self.calls[record["asked"]["session_id"]]
        for place, event in enumerate(json.loads(record["facts"]["usage"])):
            if place not in rejected:
                need(int(event["id"]) not in calls, "a call is billed twice")
                calls[int(event["id"])] = int(record["decided"]["amounts"][place])

    def _move(self, moved: Json) -> None:
        units, asset = int(moved["units"]), moved["asset"]
        need(0 < units < 2**63, "a transfer of nothing, or of too much")
        need(moved["debit"] != moved["credit"], "a transfer to itself")
        posts = moved["movement"] == "post"
        signed = -units if moved["movement"] == "void" else units
        for side, column in (("debit", 0), ("credit", 2)):
            name = moved[side]
            need(name.rsplit(":", 1)[1] == asset, "an account of another asset")
            counters = self.accounts.setdefault(name, [0, 0, 0, 0])
            counters[column + posts] += signed
            need(counters[column + posts] >= 0, f"a counter of {name} is below zero")
        for side in ("debit", "credit"):
            self._covered(moved[side])

    def _covered(self, name: str) -> None:
        if name.split(":")[1] not in MAY_GO_NEGATIVE:
            grace = self.things["grace"].get(name, {})
            lent = min(int(grace.get("granted_units", 0)), int(grace.get("chosen_units", 0)))
            need(self.available(name) + lent >= 0, f"{name} is overdrawn")

    def _sums(self, record: Json) -> None:
        """What the things promise is what the accounts hold."""
        touched = {name for moved in record.get("moved", ()) for name in _sides(moved)}
        for owner, kind, asset in sorted(tuple(name.split(":")) for name in touched):
            if kind in {"prepaid", "deferred_revenue", "promotional_credit"}:
                self._held(owner, asset)
                self._announced(owner, asset)
            elif kind in {"vendor_payable", "partner_payable"}:
                self._leaving(owner, kind, asset)
            elif kind == "dispute_escrow":
                self._escrowed(asset)
            elif kind == "vendor_pending":
                self._earned(owner, asset)

    def _held(self, operator: str, asset: str) -> None:
        kinds = ("prepaid", "deferred_revenue", "promotional_credit")
        names = [f"{operator}:{kind}:{asset}" for kind in kinds]
        pending = sum(self.accounts.get(name, [0])[0] for name in names)
        owed = self._owed("hold", operator_id=operator, asset=asset)
        owed += sum(
            int(session["cap_units"]) - int(session["spent_units"])
            for session in self.waiting["session"].values()
            if (session["operator_id"], session["asset"]) == (operator, asset)
        )
        need(pending == owed, f"{pending} set aside for {operator}, holds and sessions: {owed}")
        self._credited(operator, asset)

    def _credited(self, operator: str, asset: str) -> None:
        for kind in ("deferred_revenue", "promotional_credit"):
            left = sum(
                int(lot["free_units"]) + int(lot["held_units"])
                for lot in self.things["lot"].values()
                if (lot["operator_id"], lot["kind"], lot["asset"]) == (operator, kind, asset)
            )
            found = self.posted(f"{operator}:{kind}:{asset}")
            need(found == left, f"{found} of {kind}, what is left of the lots is {left}")

    def _announced(self, operator: str, asset: str) -> None:
        found = self.accounts.get(f"{operator}:prepaid:{asset}", [0, 0, 0, 0])[2]
        owed = self._owed("top_up", organisation_id=operator, asset=asset)
        need(found == owed, f"{found} to come for {operator}, its top-ups come to {owed}")

    def _leaving(self, owner: str, kind: str, asset: str) -> None:
        found = self.accounts[f"{owner}:{kind}:{asset}"][0]
        owed = self._owed("payout", organisation_id=owner, kind=kind, asset=asset)
        need(found == owed, f"{found} on its way to {owner}, its payouts come to {owed}")

    def _owed(self, noun: str, **of: str) -> int:
        """The units of all things of a noun that wait and are of these."""
        return sum(
            int(thing["amount_units"])
            for thing in self.waiting[noun].values()
            if all(thing[name] == value for name, value in of.items())
        )

    def _escrowed(self, asset: str) -> None:
        kinds = ("held_net_units", "held_fee_units", "held_partner_units")
        owed = sum(
            int(dispute.get(kind, 0))
            for dispute in self.waiting["dispute"].values()
            if dispute["asset"] == asset
            for kind in kinds
        )
        found = self.posted(f"{PLATFORM}:dispute_escrow:{asset}")
        need(found == owed, f"{found} {asset} in escrow, open disputes come to {owed}")

    def _earned(self, vendor: str, asset: str) -> None:
        owed = sum(
            net_of(charge)
            for charge in self.waiting["charge"].values()
            if (charge["vendor_id"], charge["asset"]) == (vendor, asset)
        )
        found = self.posted(f"{vendor}:vendor_pending:{asset}")
        need(found == owed, f"{found} pending for {vendor}, its charges come to {owed}")


def day(at_us: int) -> str:
    """The UTC day of a moment."""
    return datetime.fromtimestamp(at_us // 1_000_000, tz=UTC).strftime("%Y-%m-%d")


def answered(record: Json, expected: str) -> None:
    """The record is the refusal that is expected; an empty one is none."""
    found = record.get("refused", {}).get("code", "")
    need(found == expected, f"answered {found or 'yes'}, where it is {expected or 'yes'}")


def one_of(record: Json, noun: str) -> Json:
    """The only thing of a noun that a record changes, as it is afterwards."""
    (found,) = [each["after"] for each in record["changed"] if each["noun"] == noun]
    return dict(found)


def total(record: Json, movement: str) -> int:
    """The units of all transfers of one movement in a record."""
    return sum(int(m["units"]) for m in record.get("moved", ()) if m["movement"] == movement)


def net_of(charge: Json) -> int:
    """What of a charge is the vendor's now."""
    tail = charge.get("tail") or {"amount_units": "0", "returned_units": "0"}
    kept = int(charge["amount_units"]) - int(charge["refunded_units"])
    kept -= int(charge["fee_units"]) - int(charge["fee_returned_units"])
    return kept - (int(tail["amount_units"]) - int(tail["returned_units"]))


def leaf(data: bytes) -> bytes:
    """RFC 6962's hash of a leaf, which of an entry is its first line."""
    return hashlib.sha256(b"\0" + data.partition(b"\n")[0]).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962's root of a tree, by its definition."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def _who(record: Json) -> str:
    by = record["by"]
    newcomer = record["operation"] in NEWCOMERS
    return str(by["key_thumbprint"] if newcomer else by["principal_id"])


def _sides(moved: Json) -> tuple[str, str]:
    return moved["debit"], moved["credit"]


def _sha256(document: Json) -> str:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
