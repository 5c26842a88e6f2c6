"""A platform that moves money which nothing in its record explains is found, whatever it says."""

from collections.abc import Iterable

import pytest
from msgspec import structs

from farthing.protocol.canonical import Json
from farthing.protocol.faults import Fault, FaultKind
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.messages.disputes import INITIATE_DISPUTE, InitiateDispute
from farthing.protocol.records import Change, Record, parse_record
from tests.construction import Trade
from tests.protocol.replay.correcting import charge_of, corrected
from tests.protocol.replay.forging import Forge, after, audited, by, rewritten
from tests.protocol.replay.metered import Metered, events
from tests.settlement.engine.treasurer import Treasury

DOLLAR = 10**9


def market() -> Trade:
    """A market in which money came, was spent in every way, given back, settled and paid out."""
    trade = Trade.opened()
    treasury, room = Treasury(trade), trade.room
    treasury.partner(room.organisation("operator", "Partner One"), 50_000)
    treasury.grant_credit(10**6)
    room.fund(room.organisation("operator", "Operator Two"), DOLLAR)
    trade.agreement_id = room.agree(trade.agent, trade.listing_id)
    treasury.event(treasury.top_up(DOLLAR), "paid", "evt_1")
    treasury.refund(trade.captured(3), 10**6)
    session = Metered.opened(trade)
    charge_id = charge_of(session.report(events(1, 3, 2, at_us=room.now_us)))
    corrected(trade, charge_id, {1: 1})
    ask = InitiateDispute(
        charge_id=trade.captured(2), reason="calculation_error", idempotency_key=room.key()
    )
    room.done(trade.agent, INITIATE_DISPUTE, ask)
    trade.held(1)
    session.close(trade.vendor)
    room.advance(10**6)
    assert treasury.payout(10**6).refused is None
    trade.held(2)
    return trade


TRADE = market()
RECORDS = [parse_record(data)[0] for data in TRADE.room.journal]
AGREEMENT = [c for r in RECORDS for c in r.changed if c.noun == "agreement"][-1]
FORMER = next(c for r in RECORDS for c in r.changed if c.noun == "agreement").id
OPERATOR, VENDOR = (str(AGREEMENT.after[name]) for name in ("operator_id", "vendor_id"))
OTHER = next(str(r.asked["organisation_id"]) for r in reversed(RECORDS)
             if r.operation == "fund_account")  # fmt: skip


PARTNER = next(str(c.after["partner_id"]) for r in RECORDS for c in r.changed
               if c.noun == "partner")  # fmt: skip
CLEARING = "platform:external_clearing:USD"
TOP_UP = next((c.id, c.after) for r in RECORDS for c in r.changed if c.noun == "top_up")


def last(operation: str) -> Record:
    return [r for r in RECORDS if r.operation == operation and not r.refused][-1]


def fault_of(seq: int, forge: Forge) -> Fault | None:
    """What is found where the platform wrote one record otherwise."""
    return audited(rewritten(RECORDS, seq, forge)).fault


def moving(debit: str, credit: str) -> Forge:
    def forge(record: Record) -> Record:
        more = Transfer(movement=Movement.POST, debit=debit, credit=credit, asset="USD", units=7)
        return structs.replace(record, moved=(*record.moved, more))

    return forge


def changing(noun: str, thing_id: str, after: dict[str, Json]) -> Forge:
    change = Change(noun=noun, id=thing_id, after=after)
    return lambda record: structs.replace(record, changed=(*record.changed, change))


def operations(records: Iterable[Record]) -> list[str]:
    """Whatever is done once there is money."""
    begun = next(r.seq for r in RECORDS if r.operation == "accept_terms")
    return sorted({r.operation for r in records if r.seq >= begun and not r.refused})


def test_a_market_in_order_moves_nothing_for_no_reason() -> None:
    assert fault_of(0, lambda record: record) is None


@pytest.mark.parametrize("operation", operations(RECORDS))
@pytest.mark.parametrize("payer", ["of the agreement", "of another"])
def test_no_record_pays_a_vendor_by_the_way(operation: str, payer: str) -> None:
    owner = OPERATOR if payer == "of the agreement" else OTHER
    seq = last(operation).seq

    fault = fault_of(seq, moving(f"{owner}:prepaid:USD", f"{VENDOR}:vendor_payable:USD"))

    assert fault is not None
    assert fault.seq == seq


@pytest.mark.parametrize(
    ("noun", "thing_id", "after"),
    [
        ("agreement", AGREEMENT.id, {**AGREEMENT.after, "fee_ppm": 900_000}),
        ("grace", f"{OPERATOR}:prepaid:USD", {"granted_units": "1", "chosen_units": "1"}),
        ("partner", VENDOR, {"partner_id": OTHER, "ppm": 900_000}),
        ("platform", "platform", {"fee_ppm": 900_000, "open_enrolment": True}),
        ("position", AGREEMENT.id, {"page": "1000000"}),
        ("principal", VENDOR, {"organisation_id": VENDOR, "frozen_by": []}),
        ("top_up", *TOP_UP),
        ("listing", "lst_x", {"rate_card_sha256": "0" * 64}),
        ("closure", f"{VENDOR}:vendor_payable:USD", {"seq": 1}),
    ],
)
def test_nothing_that_is_judged_by_changes_by_the_way(
    noun: str, thing_id: str, after: dict[str, Json]
) -> None:
    fault = fault_of(last("settle_charge").seq, changing(noun, thing_id, after))

    assert fault is not None
    assert fault.seq == last("settle_charge").seq
    is_money = noun in {"closure", "top_up"}
    assert fault.kind is (FaultKind.LEDGER if is_money else FaultKind.AUTHORITY)


LIES: list[tuple[str, str, dict[str, Json], FaultKind]] = [
    ("accept_terms", "agreement", {"fee_ppm": 900_000}, FaultKind.AUTHORITY),
    ("accept_terms", "agreement", {"partner": {"partner_id": OTHER, "ppm": 9}},
     FaultKind.AUTHORITY),
    ("accept_terms", "agreement", {"vendor_id": OTHER}, FaultKind.SIGNATURE),
    ("accept_terms", "agreement", {"operator_id": OTHER}, FaultKind.SIGNATURE),
    ("accept_terms", "agreement", {"rate_card_sha256": "0" * 64}, FaultKind.SIGNATURE),
    ("capture_hold", "position", {"page": "1000000"}, FaultKind.AUTHORITY),
    ("capture_hold", "charge", {"agreement_id": FORMER}, FaultKind.HOLD),
    ("accept_terms", "agreement", {"tags": ["other"]}, FaultKind.SIGNATURE),
    ("accept_terms", "agreement", {"dispute_window_s": 1}, FaultKind.SIGNATURE),
    ("accept_terms", "agreement", {"agreement_id": FORMER}, FaultKind.RECORD),
    ("set_authority", "grant", {"per_day_units_max": "9000000000000"}, FaultKind.AUTHORITY),
    ("place_hold", "hold", {"workload": {"page": "1"}}, FaultKind.HOLD),
    ("place_hold", "hold", {"args_sha256": "0" * 64}, FaultKind.HOLD),
    ("settle_charge", "charge", {"usage": {"page": "1"}}, FaultKind.CHARGE),
    ("settle_charge", "charge", {"window_closes_at_us": 2**53 - 1}, FaultKind.CHARGE),
    ("refund_charge", "charge", {"drawn": []}, FaultKind.CHARGE),
    ("refund_charge", "charge", {"trail_seqs": []}, FaultKind.CHARGE),
    ("grant_credit", "lot", {"operator_id": OTHER}, FaultKind.LEDGER),
    ("place_hold", "hold", {"position": {"page": "1000000"}}, FaultKind.HOLD),
    ("refund_charge", "charge", {"refunded_units": "2000000"}, FaultKind.CHARGE),
    ("settle_charge", "charge", {"vendor_id": OTHER}, FaultKind.CHARGE),
    ("settle_charge", "charge", {"status": "pending"}, FaultKind.CHARGE),
    ("grant_credit", "lot", {"amount_units": "1000001"}, FaultKind.LEDGER),
    ("request_payout", "payout", {"organisation_id": OTHER}, FaultKind.LEDGER),
    ("request_payout", "payout", {"destination": "acct_of_another"}, FaultKind.LEDGER),
    ("process_event", "top_up", {"organisation_id": OTHER}, FaultKind.LEDGER),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "noun", "members", "kind"),
    LIES,
    ids=[f"{lie[0]} {lie[1]} {'_'.join(lie[2])}" for lie in LIES],
)
def test_what_a_record_moves_is_what_it_says(
    operation: str, noun: str, members: dict[str, Json], kind: FaultKind
) -> None:
    fault = fault_of(last(operation).seq, after(noun, **members))

    assert fault is not None
    assert (fault.kind, fault.seq) == (kind, last(operation).seq)


@pytest.mark.parametrize(
    ("operation", "noun", "debit", "credit"),
    [
        ("request_payout", "payout", f"{PARTNER}:partner_payable:USD", CLEARING),
        ("create_top_up", "top_up", CLEARING, f"{OTHER}:prepaid:USD"),
    ],
)
def test_nobody_asks_for_money_of_another_house(
    operation: str, noun: str, debit: str, credit: str
) -> None:
    owner, kind, _ = (credit if debit == CLEARING else debit).split(":")

    def forge(record: Record) -> Record:
        moved = [structs.replace(m, debit=debit, credit=credit, units=7) for m in record.moved]
        written = structs.replace(record, moved=tuple(moved))
        named = {"kind": kind} if noun == "payout" else {}
        return after(noun, organisation_id=owner, amount_units="7", **named)(written)

    fault = fault_of(last(operation).seq, forge)

    assert fault is not None
    assert (fault.kind, fault.seq) == (FaultKind.LEDGER, last(operation).seq)


def test_a_payment_is_the_same_until_it_has_moved() -> None:
    def forge(record: Record) -> Record:
        moved = [structs.replace(each, units=7) for each in record.moved]
        return after("top_up", amount_units="7")(structs.replace(record, moved=tuple(moved)))

    fault = fault_of(last("process_event").seq, forge)

    assert fault is not None
    assert (fault.kind, fault.seq) == (FaultKind.LEDGER, last("process_event").seq)


def test_a_thing_of_no_known_noun_changes_nowhere() -> None:
    fault = fault_of(last("settle_charge").seq, changing("lots", "lot_x", {}))

    assert fault is not None
    assert (fault.kind, fault.seq) == (FaultKind.AUTHORITY, last("settle_charge").seq)


def test_a_hold_sets_nobody_elses_money_aside() -> None:
    def forge(record: Record) -> Record:
        moved = [structs.replace(each, debit=f"{OTHER}:prepaid:USD") for each in record.moved]
        return structs.replace(record, moved=tuple(moved))

    fault = fault_of(last("place_hold").seq, forge)

    assert fault is not None
    assert (fault.kind, fault.seq) == (FaultKind.HOLD, last("place_hold").seq)


@pytest.mark.parametrize(
    ("operation", "forge"),
    [
        ("fund_account", by(principal_id="platform")),
        ("refund_charge", by(principal_id="platform")),
        ("refund_charge", by(role="treasurer")),
        ("settle_charge", by(**{
            name: getattr(last("refund_charge").by, name)
            for name in ("principal_id", "organisation_id", "role", "key_thumbprint")
        }, proof_jti="new", proof_expires_at_us=2**53 - 1)),
    ],
    ids=["platform funds", "platform refunds", "another role", "vendor settles"],
)  # fmt: skip
def test_nobody_asks_for_what_is_not_theirs_to_ask(operation: str, forge: Forge) -> None:
    fault = fault_of(last(operation).seq, forge)

    assert fault is not None
    assert (fault.kind, fault.seq) == (FaultKind.KEY, last(operation).seq)
