"""Each rule of a whole journal is broken once, in a journal that is chained and signed as it is."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from farthing.protocol.audit import verify_journal
from farthing.protocol.canonical import Json
from farthing.protocol.chain import Chain
from farthing.protocol.faults import FaultKind
from farthing.protocol.records import Change, Count, Record, parse_record
from farthing.protocol.replay.rulebook import Rulebook
from tests.protocol.bundling import treasured
from tests.protocol.evidence_market import Told
from tests.protocol.replay.forging import Forge, after, audited, by, rewritten


def journal() -> list[bytes]:
    """A market in which everything that a rule speaks of has happened."""
    told = Told.of(rotated=True, held=14)
    room = told.trade.room
    told.refund(1_000)
    told.dispute("not_delivered")
    room.advance(10**6)
    told.trade.held(3)
    room.advance(10**6)
    refused = room.hold(told.trade.agent, told.trade.agreement_id, 10**6)
    assert refused.refused is not None
    told.trade.captured(2)
    return room.journal


JOURNAL = journal()
RECORDS = [parse_record(data)[0] for data in JOURNAL]


def first(operation: str) -> Record:
    return next(each for each in RECORDS if each.operation == operation and not each.refused)


def fact(what: str, **members: Json) -> Forge:
    def forge(record: Record) -> Record:
        facts: dict[str, Any] = dict(record.facts or {})
        facts[what] = {**facts[what], **members}
        return structs.replace(record, facts=facts)

    return forge


def moved(**members: Any) -> Forge:
    def forge(record: Record) -> Record:
        changed = [structs.replace(each, **members) for each in record.moved]
        return structs.replace(record, moved=tuple(changed))

    return forge


def counted(*counts: Count) -> Forge:
    return lambda record: structs.replace(record, counted=counts)


def one_more_change(noun: str) -> Forge:
    def forge(record: Record) -> Record:
        change = Change(noun=noun, id="x", after={})
        return structs.replace(record, changed=(*record.changed, change))

    return forge


def last_as_first(operation: str) -> Callable[[Record], Record]:
    """The request of the first record of an operation, sent again by the last."""
    request = first(operation).request
    return lambda record: structs.replace(record, request=request)


def proof_of(operation: str) -> Forge:
    jti = first(operation).by.proof_jti
    return by(proof_jti=jti, key_thumbprint=first(operation).by.key_thumbprint)


def seq_of(operation: str) -> int:
    return first(operation).seq


def last_of(operation: str) -> int:
    return [each.seq for each in RECORDS if each.operation == operation and not each.refused][-1]


def terminated(record: Record) -> Record:
    """Whoever was refused had ended its agreement instead."""
    (agreement,) = first("accept_terms").changed
    ended = Change(
        noun="agreement",
        id=agreement.id,
        before=agreement.after,
        after={**agreement.after, "status": "terminated"},
    )
    return structs.replace(
        record,
        operation="terminate_agreement",
        refused=None,
        changed=(ended,),
        asked={"agreement_id": agreement.id},
    )


REFUSED = next(each.seq for each in RECORDS if each.refused)
GRANT = first("place_hold").counted[0]
TWICE = structs.replace(GRANT, units=GRANT.units * 2)

BROKEN: list[tuple[str, int, Forge, FaultKind]] = [
    ("a key that speaks for nobody", seq_of("fund_account"), by(key_thumbprint="x"), FaultKind.KEY),
    ("another house", seq_of("place_hold"), by(organisation_id="org_x"), FaultKind.KEY),
    ("no proof", seq_of("place_hold"), by(proof_jti="", proof_expires_at_us=0), FaultKind.KEY),
    ("a refusal with no proof", REFUSED, by(proof_jti="", proof_expires_at_us=0), FaultKind.KEY),
    ("nobody", seq_of("fund_account"), by(principal_id=""), FaultKind.KEY),
    ("a retired key", last_of("capture_hold"),
     by(key_thumbprint=first("rotate_key").by.key_thumbprint), FaultKind.KEY),
    ("a key by the way", seq_of("fund_account"), one_more_change("key"), FaultKind.KEY),
    ("another listing", seq_of("publish_listing"), fact("listing", name="Other"),
     FaultKind.SIGNATURE),
    ("another card", seq_of("publish_listing"), fact("rate_card", card_id="other"),
     FaultKind.SIGNATURE),
    ("another head", seq_of("publish_listing"), after("listing", listing_sha256="0" * 64),
     FaultKind.SIGNATURE),
    ("another quote", seq_of("accept_terms"), fact("quote", total_units="1"), FaultKind.SIGNATURE),
    ("another acceptance", seq_of("accept_terms"), fact("acceptance", nonce="1" * 32),
     FaultKind.SIGNATURE),
    ("another agreement", seq_of("accept_terms"), after("agreement", quote_sha256="0" * 64),
     FaultKind.SIGNATURE),
    ("another delivery", seq_of("capture_hold"), fact("delivery", result_sha256="0" * 64),
     FaultKind.SIGNATURE),
    ("another usage", seq_of("capture_hold"), after("charge", usage={"page": "1"}),
     FaultKind.SIGNATURE),
    ("above the grant", seq_of("set_authority"), after("grant", per_call_units_max="1"),
     FaultKind.AUTHORITY),
    ("above the day", seq_of("set_authority"), after("grant", per_day_units_max="1"),
     FaultKind.AUTHORITY),
    ("a vendor denied", seq_of("set_authority"),
     after("grant", vendors_allow=["org_x"]), FaultKind.AUTHORITY),
    ("a grant of another's", seq_of("set_authority"), after("grant", operator_id="org_x"),
     FaultKind.AUTHORITY),
    ("a vendor frozen", last_of("approve_registration"), after("principal", frozen_by=["platform"]),
     FaultKind.AUTHORITY),
    ("not counted", seq_of("place_hold"), counted(), FaultKind.AUTHORITY),
    ("counted twice", seq_of("place_hold"), counted(TWICE), FaultKind.AUTHORITY),
    ("given back too much", seq_of("expire_hold"), counted(TWICE), FaultKind.AUTHORITY),
    ("counted by the way", seq_of("fund_account"), counted(GRANT), FaultKind.AUTHORITY),
    ("a key used twice", last_of("place_hold"), last_as_first("place_hold"),
     FaultKind.IDEMPOTENCY),
    ("a proof used twice", seq_of("publish_listing"), by(proof_expires_at_us=1),
     FaultKind.IDEMPOTENCY),
    ("set aside otherwise", seq_of("place_hold"), moved(units=1), FaultKind.HOLD),
    ("another hold", seq_of("place_hold"), after("hold", amount_units="1"), FaultKind.AUTHORITY),
    ("no agreement", seq_of("place_hold"), after("hold", agreement_id="agr_x"), FaultKind.HOLD),
    ("an agreement that ended", REFUSED, terminated, FaultKind.HOLD),
    ("an agreement that begins ended", seq_of("accept_terms"),
     after("agreement", status="terminated"), FaultKind.AUTHORITY),
    ("a hold by the way", seq_of("fund_account"), one_more_change("hold"), FaultKind.HOLD),
    ("another end", seq_of("expire_hold"), after("hold", status="released"), FaultKind.HOLD),
    ("too late", seq_of("place_hold"), after("hold", expires_at_us=1), FaultKind.HOLD),
    ("a charge of more", last_of("capture_hold"), after("charge", amount_units="999999999999"),
     FaultKind.HOLD),
    ("a refund above the charge", seq_of("refund_charge"),
     after("charge", refunded_units="999999999999"), FaultKind.CHARGE),
    ("another charge", seq_of("refund_charge"), after("charge", amount_units="1"),
     FaultKind.CHARGE),
    ("a refusal that moves", REFUSED,
     lambda record: structs.replace(record, counted=(GRANT,)), FaultKind.RECORD),
]  # fmt: skip


def test_a_market_in_order_breaks_no_rule() -> None:
    findings = audited(JOURNAL)

    assert findings.fault is None
    assert findings.records == len(JOURNAL)


def test_a_market_with_lots_partners_and_grace_breaks_no_rule() -> None:
    records = treasured()

    findings = audited(records)

    assert findings.fault is None
    assert findings.records == len(records)


@pytest.mark.parametrize(
    ("seq", "forge", "kind"),
    [each[1:] for each in BROKEN],
    ids=[each[0].replace(" ", "-") for each in BROKEN],
)
def test_a_broken_rule_is_named(seq: int, forge: Forge, kind: FaultKind) -> None:
    findings = audited(rewritten(RECORDS, seq, forge))

    assert findings.fault is not None
    assert findings.fault.kind is kind
    assert findings.fault.seq >= seq


def test_a_proof_counts_once() -> None:
    seq = last_of("approve_registration")

    findings = audited(rewritten(RECORDS, seq, proof_of("approve_registration")))

    assert findings.fault is not None
    assert (findings.fault.kind, findings.fault.seq) == (FaultKind.IDEMPOTENCY, seq)


def test_a_hold_ends_once() -> None:
    end = RECORDS[seq_of("expire_hold") - 1]
    again = structs.replace(end, seq=len(RECORDS) + 1, at_us=RECORDS[-1].at_us, moved=())
    chain = Chain()
    for data in JOURNAL:
        chain.add(data)

    findings = audited([*JOURNAL, chain.bytes_of(again)])

    assert findings.fault is not None
    assert (findings.fault.kind, findings.fault.seq) == (FaultKind.HOLD, len(RECORDS) + 1)


def test_no_asset_turns_into_another() -> None:
    transfer = first("fund_account").moved[0]
    credit = transfer.credit.replace(":USD", ":EUR")

    findings = audited(rewritten(RECORDS, seq_of("fund_account"), moved(credit=credit)))

    assert findings.fault is not None
    assert (findings.fault.kind, findings.fault.seq) == (
        FaultKind.LEDGER,
        seq_of("fund_account"),
    )


def test_a_changed_record_is_called_that_whatever_rule_it_breaks() -> None:
    seq = seq_of("set_authority")
    data = JOURNAL[seq - 1]
    changed = data.replace(b'"operator_id":"org_', b'"operator_id":"orh_', 1)

    findings = audited([*JOURNAL[: seq - 1], changed, *JOURNAL[seq:]])

    assert changed != data
    assert findings.fault is not None
    assert (findings.fault.kind, findings.fault.seq) == (FaultKind.RECORD, seq)


def test_without_the_quotes_key_all_else_is_judged() -> None:
    assert verify_journal(JOURNAL, follow=Rulebook().follow).fault is None
