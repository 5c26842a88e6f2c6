"""The rules that every record of a whole journal keeps, held against it one record after another.

Boundary: needs the records in order and nothing else; every limit, key and hold that it judges by
was learnt from the records before. Source: spec/audit.md.
"""

import heapq
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from farthing.protocol.canonical import Json, canonical_bytes, document_sha256
from farthing.protocol.contracts import (
    check_acceptance,
    read_acceptance,
    read_delivery,
    read_quote,
)
from farthing.protocol.errors import Refusal, Unverified
from farthing.protocol.faults import FaultKind, RuleBroken
from farthing.protocol.keys import PublicKey
from farthing.protocol.ledger import split_account
from farthing.protocol.listing import parse_listing
from farthing.protocol.rating import CompiledCard, compile_card, parse_card
from farthing.protocol.records import Record
from farthing.protocol.replay.allowances import Allowances
from farthing.protocol.replay.amendments import Amendments
from farthing.protocol.replay.budgets import Budgets
from farthing.protocol.replay.charges import Charges
from farthing.protocol.replay.closures import Closures
from farthing.protocol.replay.deadlines import Deadlines
from farthing.protocol.replay.disputes import Disputes
from farthing.protocol.replay.keys import KEY_OPERATIONS, PLATFORM, KeyHistory
from farthing.protocol.replay.lots import Lots
from farthing.protocol.replay.reading import JsonObject, fact, member, text_fact
from farthing.protocol.replay.sessions import Sessions
from farthing.protocol.replay.spending import Spending
from farthing.protocol.replay.treasury import Treasury
from farthing.protocol.signatures import InvalidSignature, Typ, verify_detached
from farthing.protocol.terms import Terms, parse_terms

__all__ = ["Rulebook"]

# What of a quote an agreement is made of.
_QUOTED: Final = (
    "asset",
    "buyer_id",
    "listing_id",
    "listing_sha256",
    "listing_version",
    "operator_id",
    "rate_card_sha256",
    "terms_sha256",
    "vendor_id",
)
# What of a listing its head repeats.
_LISTED: Final = ("listing_id", "primary_tag", "rate_card_sha256", "terms_sha256", "version")


class Rulebook:
    """What the records so far have established, and whether the next one may follow them.

    Args:
        quote_keys: the keys that the platform signs quotes with, old ones included. Without them
            a quote's signature is not judged.
    """

    def __init__(self, quote_keys: Sequence[PublicKey] = ()) -> None:
        self._offers: dict[str, JsonObject] = {}
        self._quote_keys = {key.thumbprint: key for key in quote_keys}
        self._keys = KeyHistory()
        self._budgets = Budgets()
        self._cards: dict[str, CompiledCard] = {}
        self._spending = Spending(self._budgets, self._cards)
        self._terms: dict[str, Terms] = {}
        self._charges = Charges(self._budgets)
        self._disputes = Disputes(self._budgets, self._charges, self._cards, self._terms)
        self._treasury = Treasury(self._budgets)
        self._closures = Closures()
        self._lots = Lots()
        self._deadlines = Deadlines()
        self._amendments = Amendments()
        self._allowances = Allowances(self._budgets)
        self._sessions = Sessions(self._budgets, self._allowances, self._keys, self._cards)
        # Sixteen bytes of a hash for each key: whoever wants two to meet must break SHA-256.
        self._asked: set[bytes] = set()
        self._burnt: set[tuple[str, str]] = set()
        self._burnt_until: list[tuple[int, tuple[str, str]]] = []

    def follow(self, record: Record) -> None:
        """Judge the next record, and learn from it.

        Raises:
            RuleBroken: it breaks a rule.
        """
        try:
            self._ask_once(record)
            self._speak(record)
            self._deadlines.check(record)
            if record.refused is not None:
                _changes_nothing(record)
                return
            _moves_one_asset(record)
            self._sign(record)
            self._spending.follow(record)
            self._sessions.follow(record)
            self._disputes.follow(record)
            charges = self._charges.follow(record)
            self._treasury.follow(record, charges=charges)
            self._closures.follow(record)
            self._lots.follow(record)
            self._allowances.follow(record)
            self._amendments.follow(record)
            self._budgets.learn(record)
            self._deadlines.learn(record)
        except RuleBroken:
            raise
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            # What the platform signed need not be well-formed in every part.
            why = f"says what no {record.operation} says: {error!r}"
            raise RuleBroken(FaultKind.RECORD, why) from error

    def _ask_once(self, record: Record) -> None:
        by = record.by
        if record.request is not None:
            who = by.principal_id or by.key_thumbprint
            if record.operation in {"enrol_organisation", "register_agent"}:
                who = by.key_thumbprint
            named = f"{who}\n{record.operation}\n{record.request.key}".encode()
            scope = sha256(named).digest()[:16]
            if scope in self._asked:
                raise RuleBroken(FaultKind.IDEMPOTENCY, "an idempotency key is used twice")
            self._asked.add(scope)
        if not by.proof_jti:
            if by.principal_id != PLATFORM:
                raise RuleBroken(FaultKind.KEY, "nobody's proof stands behind it")
            return
        while self._burnt_until and self._burnt_until[0][0] < record.at_us:
            self._burnt.discard(heapq.heappop(self._burnt_until)[1])
        proof = (by.key_thumbprint, by.proof_jti)
        if proof in self._burnt:
            raise RuleBroken(FaultKind.IDEMPOTENCY, "a proof is used twice")
        if by.proof_expires_at_us <= record.at_us:
            raise RuleBroken(FaultKind.IDEMPOTENCY, "the proof had expired")
        self._burnt.add(proof)
        heapq.heappush(self._burnt_until, (by.proof_expires_at_us, proof))

    def _speak(self, record: Record) -> None:
        """Who asked holds a key in force; whoever gets or loses one does so in a known way."""
        try:
            self._judge_keys(record)
        except (Unverified, AttributeError, LookupError, TypeError, ValueError) as error:
            raise RuleBroken(FaultKind.KEY, str(error)) from error

    def _judge_keys(self, record: Record) -> None:
        if record.by.principal_id:
            self._keys.check_speaker(record)
        elif record.operation not in KEY_OPERATIONS:
            raise Unverified("nobody asked for it")
        if not any(change.noun == "key" for change in record.changed):
            return
        if record.operation == "genesis":
            self._keys.begin(record)
        elif record.operation in KEY_OPERATIONS:
            self._keys.learn(record)
        else:
            raise Unverified("a key begins or ends by it")

    def _sign(self, record: Record) -> None:
        match record.operation:
            case "publish_listing":
                self._check_publication(record)
            case "accept_terms":
                self._check_agreement(record)
            case "capture_hold":
                self._check_delivery(record, record.by.principal_id)
            case "accept_answer" if record.changed:
                delivery = fact(record, "delivery")
                self._check_delivery(record, member(delivery, "vendor_id"))
                if record.asked["result_sha256"] != delivery["result_sha256"]:
                    raise _unsigned("another answer is accepted than was signed")
            case _:
                pass

    def _check_publication(self, record: Record) -> None:
        listing, signature = fact(record, "listing"), text_fact(record, "signature")
        keys = self._keys.keys_of(record.by.principal_id, Typ.LISTING)
        try:
            verify_detached(signature, Typ.LISTING, canonical_bytes(listing), keys)
        except InvalidSignature as error:
            raise _unsigned(f"the listing: {error.reason}") from error
        named = (listing["rate_card_sha256"], listing["terms_sha256"])
        given = tuple(document_sha256(fact(record, name)) for name in ("rate_card", "terms"))
        if named != given:
            raise _unsigned("the listing names another card or other terms")
        card = parse_card(fact(record, "rate_card"))
        self._cards[card.card_sha256] = compile_card(card)
        terms, offered = parse_terms(fact(record, "terms")), parse_listing(listing)
        self._terms[member(listing, "terms_sha256")] = terms
        tags: list[Json] = [each for each in offered.tags if each != offered.primary_tag]
        published: JsonObject = {
            "tags": [offered.primary_tag, *tags],
            "output_schema_sha256": document_sha256(dict(offered.output_schema)),
        }
        (head,) = [change.after for change in record.changed if change.noun == "listing"]
        if head != {
            **published,
            **{name: listing[name] for name in _LISTED},
            "asset": card.asset,
            "listing_sha256": document_sha256(listing),
            "seq": record.seq,
            "state": "active",
            "vendor_id": record.by.principal_id,
        }:
            raise _unsigned("another listing is published than was signed")
        self._offers[offered.listing_sha256] = {
            **published,
            "delivery_deadline_s": terms.delivery.deadline_s,
            "dispute_window_s": terms.dispute.window_s,
            "evidence_window_s": terms.dispute.evidence_window_s,
        }

    def _check_agreement(self, record: Record) -> None:
        buyer_id = record.by.principal_id
        signed = fact(record, "acceptance"), text_fact(record, "acceptance_signature")
        acceptance = read_acceptance(*signed, self._keys.keys_of(buyer_id, Typ.ACCEPTANCE))
        if isinstance(acceptance, Refusal):
            raise _unsigned(f"the acceptance: {acceptance.message}")
        (agreement,) = [each.after for each in record.changed if each.noun == "agreement"]
        if agreement["acceptance_sha256"] != acceptance.sha256:
            raise _unsigned("the agreement names another acceptance")
        if agreement["quote_sha256"] != document_sha256(fact(record, "quote")):
            raise _unsigned("the agreement names another quote")
        if acceptance.quote_sha256 != agreement["quote_sha256"]:
            raise _unsigned("another quote was accepted")
        named = fact(record, "quote")
        offered = self._offers.get(str(agreement["listing_sha256"]))
        if offered is None or any(agreement[name] != offered[name] for name in offered):
            raise _unsigned("the agreement is of something else than was published")
        if (
            any(agreement[name] != named[name] for name in _QUOTED)
            or agreement["buyer_id"] != buyer_id
        ):
            raise _unsigned("the agreement is of something else than was quoted")
        if not self._quote_keys:
            return
        quote = read_quote(
            fact(record, "quote"), text_fact(record, "quote_signature"), self._quote_keys.get
        )
        if isinstance(quote, Refusal):
            raise _unsigned(f"the quote: {quote.message}")
        if (misfit := check_acceptance(acceptance, quote)) is not None:
            raise _unsigned(f"the acceptance is not of the quote: {misfit.path}")

    def _check_delivery(self, record: Record, vendor_id: str) -> None:
        signed = fact(record, "delivery"), text_fact(record, "delivery_signature")
        delivery = read_delivery(*signed, self._keys.keys_of(vendor_id, Typ.DELIVERY))
        if isinstance(delivery, Refusal):
            raise _unsigned(f"the delivery record: {delivery.message}")
        (charge,) = [each.after for each in record.changed if each.noun == "charge"]
        usage = {meter: str(quantity) for meter, quantity in delivery.usage.items()}
        found = (charge["hold_id"], charge["vendor_id"], charge["result_sha256"], charge["usage"])
        if found != (delivery.hold_id, delivery.vendor_id, delivery.result_sha256, usage):
            raise _unsigned("the charge is not of the delivery that was signed")


def _changes_nothing(record: Record) -> None:
    if record.moved or record.counted or record.changed:
        raise RuleBroken(FaultKind.RECORD, "a refusal has an effect")


def _moves_one_asset(record: Record) -> None:
    """A transfer's own asset is that of both its accounts."""
    for transfer in record.moved:
        assets = {split_account(name)[2] for name in (transfer.debit, transfer.credit)}
        if assets != {transfer.asset}:
            why = f"moves {transfer.asset} between accounts of {', '.join(sorted(assets))}"
            raise RuleBroken(FaultKind.LEDGER, why)


def _unsigned(why: str) -> RuleBroken:
    return RuleBroken(FaultKind.SIGNATURE, why)
