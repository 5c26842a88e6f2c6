"""A platform whose books agree with themselves, and whose records keep no rule, is found out."""

from collections.abc import Sequence

import pytest
from msgspec import structs

from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.faults import Fault, FaultKind
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.records import Change, Record, Request, Signer, parse_record
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.times import parse_time
from tests.construction import Trade
from tests.keyholding import rotate
from tests.papers import signing_key
from tests.protocol.bundling import treasured
from tests.protocol.replay.forging import after, audited, rewritten
from tests.protocol.replay.test_money import (
    CLEARING,
    OPERATOR,
    OTHER,
    RECORDS,
    VENDOR,
    fault_of,
    last,
)
from tests.settlement.engine.treasurer import Treasury

PLATFORM = Signer(principal_id="platform")
END = RECORDS[-1]


def told(noun: str, **members: Json) -> Change:
    """The last that was told of a thing of a noun, of those that say this."""
    return [
        each
        for record in RECORDS
        for each in record.changed
        if each.noun == noun and members.items() <= each.after.items()
    ][-1]


def one_more(
    operation: str,
    by: Signer,
    asked: dict[str, Json],
    *changed: Change,
    moved: Sequence[Transfer] = (),
    after: Sequence[Record] = (),
) -> Record:
    """One record more, by the platform's pen."""
    seq = END.seq + len(after) + 1
    if by != PLATFORM:
        by = structs.replace(by, proof_jti=f"proof {seq}", proof_expires_at_us=2**53 - 1)
    return Record(
        seq=seq,
        at_us=END.at_us,
        operation=operation,
        by=by,
        request=None if by == PLATFORM else Request(key=f"{seq}", sha256="", args_sha256={}),
        asked=asked,
        moved=tuple(moved),
        changed=changed,
    )


def found_in(*more: Record) -> Fault | None:
    """What is found where the platform wrote some records more."""
    return audited(rewritten([*RECORDS, *more], 0, lambda each: each)).fault


def post(debit: str, credit: str, units: int, movement: Movement = Movement.POST) -> Transfer:
    return Transfer(movement=movement, debit=debit, credit=credit, asset="USD", units=units)


def became(change: Change, **members: Json) -> Change:
    return structs.replace(change, after={**change.after, **members}, before=None)


def is_at(fault: Fault | None, seq: int, kind: FaultKind) -> None:
    assert fault is not None
    assert (fault.kind, fault.seq) == (kind, seq), fault


def test_a_fee_above_the_agreements_is_found_though_its_postings_follow() -> None:
    captured = next(r for r in RECORDS if r.operation == "capture_hold")

    def forge(record: Record) -> Record:
        charge = next(each.after for each in record.changed if each.noun == "charge")
        moved = [
            structs.replace(each, units=each.units + (1 if "platform_fee" in each.credit else -1))
            if each.movement is Movement.POST and "partner" not in each.credit
            else each
            for each in record.moved
        ]
        written = structs.replace(record, moved=tuple(moved))
        return after("charge", fee_units=str(int(charge["fee_units"]) + 1))(written)

    is_at(fault_of(captured.seq, forge), captured.seq, FaultKind.HOLD)


def test_a_charge_is_not_settled_while_it_can_be_disputed() -> None:
    settled = next(r for r in RECORDS if r.operation == "settle_charge")
    closes_at_us = settled.changed[0].after["window_closes_at_us"]
    before = [each for each in RECORDS if each.at_us < closes_at_us]
    early = structs.replace(settled, seq=len(before) + 1, at_us=closes_at_us - 1)

    fault = audited(
        rewritten([*before, after("charge", trail_seqs=[early.seq])(early)], 0, after("charge"))
    ).fault

    is_at(fault, early.seq, FaultKind.CHARGE)


def test_the_platform_does_not_keep_its_fee_on_what_a_vendor_gives_back() -> None:
    refund = last("refund_charge")

    def forge(record: Record) -> Record:
        fee = next(each for each in record.moved if "platform_fee" in each.debit)
        net = next(each for each in record.moved if "vendor_" in each.debit)
        moved = [
            structs.replace(each, units=each.units + fee.units) if each == net else each
            for each in record.moved
            if each != fee
        ]
        return after("charge", fee_returned_units="0")(structs.replace(record, moved=tuple(moved)))

    is_at(fault_of(refund.seq, forge), refund.seq, FaultKind.CHARGE)


def test_more_is_not_given_back_than_the_vendor_asked_for() -> None:
    def forge(record: Record) -> Record:
        return structs.replace(
            record, asked={**record.asked, "amount": {"amount": "0.000001", "asset": "USD"}}
        )

    is_at(fault_of(last("refund_charge").seq, forge), last("refund_charge").seq, FaultKind.CHARGE)


def test_what_was_paid_out_is_not_paid_out_again() -> None:
    payout, by = told("payout"), last("fund_account").by
    units, account = int(payout.after["amount_units"]), f"{VENDOR}:vendor_payable:USD"
    asked: dict[str, Json] = {"payout_id": payout.id, "reference": "one"}
    paid = became(payout, status="paid", reference="one")
    out = post(account, CLEARING, units)
    void = structs.replace(out, movement=Movement.VOID)
    once = one_more("confirm_payout", by, asked, paid, moved=[void, out])
    again = one_more("confirm_payout", by, asked, paid, moved=[out], after=[once])
    anew = one_more(
        "send_payout", by, asked, became(paid, status="sent"), after=[once],
        moved=[structs.replace(out, movement=Movement.PENDING)],
    )  # fmt: skip

    assert found_in(once) is None
    is_at(found_in(once, again), again.seq, FaultKind.LEDGER)
    is_at(found_in(once, anew), anew.seq, FaultKind.LEDGER)


def test_nothing_is_paid_out_that_nobody_asked_for() -> None:
    members: dict[str, Json] = {"payout_id": "pay_x", "amount_units": "1", "status": "paid"}
    paid = structs.replace(became(told("payout"), **members), id="pay_x")
    asked: dict[str, Json] = {"payout_id": "pay_x", "reference": "one"}
    out = post(f"{VENDOR}:vendor_payable:USD", CLEARING, 1)

    record = one_more("confirm_payout", last("fund_account").by, asked, paid, moved=[out])

    is_at(found_in(record), END.seq + 1, FaultKind.LEDGER)


def test_a_top_up_is_credited_once() -> None:
    posted = told("top_up", status="posted")
    prepaid = f"{posted.after['organisation_id']}:prepaid:USD"
    asked: dict[str, Json] = {"top_up_id": posted.id, "reference": "again"}
    came = post(CLEARING, prepaid, int(posted.after["amount_units"]))

    record = one_more(
        "confirm_top_up", last("fund_account").by, asked, became(posted), moved=[came]
    )

    is_at(found_in(record), END.seq + 1, FaultKind.LEDGER)


def test_a_lot_does_not_end_before_its_time() -> None:
    granted = last("grant_credit")
    lot_id = derive_id("lot", granted.by.principal_id, "grant_credit", str(END.seq + 1))
    lot = became(granted.changed[0], lot_id=lot_id, created_at_us=END.at_us, seq=END.seq + 1)
    lot = structs.replace(lot, id=lot_id)
    given = one_more("grant_credit", granted.by, granted.asked, lot, moved=granted.moved)
    (came,) = granted.moved
    ended = became(lot, free_units="0", expired_units=lot.after["free_units"])
    gone = post(came.credit, "platform:breakage:USD", came.units)
    early = one_more("expire_lot", PLATFORM, {"lot_id": lot_id}, ended, moved=[gone], after=[given])

    assert found_in(given) is None
    is_at(found_in(given, early), early.seq, FaultKind.LEDGER)


def test_no_lot_is_drawn_on_before_the_one_whose_turn_it_is() -> None:
    treasury = Treasury(Trade.opened())
    first, second = treasury.grant_credit(10**7), treasury.grant_credit(10**7, priority=200)
    treasury.trade.held(1)
    records = [parse_record(data)[0] for data in treasury.room.journal]

    def forge(record: Record) -> Record:
        hold, lot = record.changed
        drawn = hold.after["drawn"]
        assert isinstance(drawn, list)
        (part,) = drawn
        assert isinstance(part, dict)
        assert part["lot_id"] == lot.id == first
        granted = next(c.after for r in records for c in r.changed if c.id == second)
        moved = {name: lot.after[name] for name in ("free_units", "held_units")}
        other = Change(noun="lot", id=second, after={**granted, **moved})
        held = became(hold, drawn=[{**part, "lot_id": second}])
        return structs.replace(record, changed=(held, other))

    seq = records[-1].seq
    assert audited(rewritten(records, 0, forge)).fault is None
    is_at(audited(rewritten(records, seq, forge)).fault, seq, FaultKind.LEDGER)


def test_a_lot_that_has_ended_is_not_spent() -> None:
    granted = last("grant_credit")
    ends_at = "2026-01-01T00:00:00.000000Z"

    def forge(record: Record) -> Record:
        expires = structs.replace(record, asked={**record.asked, "expires_at": ends_at})
        return after("lot", expires_at_us=parse_time(ends_at))(expires)

    drawn = next(
        r.seq for r in RECORDS for c in r.changed if c.noun == "lot" and r.seq > granted.seq
    )
    is_at(fault_of(granted.seq, forge), drawn, FaultKind.LEDGER)


def test_a_hold_is_not_ended_for_another_that_was_named() -> None:
    hold = told("hold", status="open")
    captured = last("capture_hold")

    def forge(record: Record) -> Record:
        return structs.replace(record, asked={**record.asked, "hold_id": hold.id})

    is_at(fault_of(captured.seq, forge), captured.seq, FaultKind.HOLD)


def test_a_hold_costs_what_its_card_says() -> None:
    placed = last("place_hold")
    (counted,) = placed.counted

    def forge(record: Record) -> Record:
        units = counted.units + 1
        moved = [structs.replace(each, units=each.units + 1) for each in record.moved[:1]]
        written = structs.replace(
            record,
            moved=(*moved, *record.moved[1:]),
            counted=(structs.replace(counted, units=units),),
        )
        return after("hold", amount_units=str(units))(written)

    is_at(fault_of(placed.seq, forge), placed.seq, FaultKind.HOLD)


ROLES = {"admin", "operator", "treasurer"}
AGENT = str(told("grant").after["agent_id"])
AMENDED: list[tuple[str, str, dict[str, Json], Change]] = [
    ("set_authority", "set_authority", {
        "agent_id": AGENT, "vendors_deny": [VENDOR],
        "per_call_max": {"amount": "1", "asset": "USD"},
        "per_day_max": {"amount": "1", "asset": "USD"},
    }, structs.replace(
        became(told("grant"), per_call_units_max="1000000000", per_day_units_max="1000000000"),
        before=told("grant").after,
    )),
    ("freeze", "approve_registration", {"principal_id": VENDOR, "reason": ""},
     structs.replace(told("principal", principal_id=VENDOR),
                     before=told("principal", principal_id=VENDOR).after)),
    ("set_grace", "fund_account", {
        "organisation_id": OPERATOR, "amount": {"amount": "1", "asset": "USD"},
    }, Change(noun="grace", id=f"{OPERATOR}:prepaid:USD", after={
        "account": f"{OPERATOR}:prepaid:USD", "organisation_id": OPERATOR, "asset": "USD",
        "granted_units": "2000000000", "chosen_units": str(2**63 - 1),
    })),
    ("set_partner", "approve_registration",
     {"subject_id": VENDOR, "partner_id": OTHER, "ppm": 1},
     structs.replace(became(told("partner"), ppm=100_000), before=told("partner").after)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "asker", "asked", "change"), AMENDED, ids=[each[0] for each in AMENDED]
)
def test_a_thing_becomes_what_was_asked_for(
    operation: str, asker: str, asked: dict[str, Json], change: Change
) -> None:
    by = next(r.by for r in RECORDS if r.operation == asker and r.by.role in ROLES)

    is_at(found_in(one_more(operation, by, asked, change)), END.seq + 1, FaultKind.AUTHORITY)


def test_the_past_that_a_record_tells_is_the_one_there_was() -> None:
    seq = last("approve_registration").seq

    def forge(record: Record) -> Record:
        changed = [
            structs.replace(each, before={**(each.before or {}), "frozen_by": ["org_x"]})
            for each in record.changed
        ]
        return structs.replace(record, changed=tuple(changed))

    is_at(fault_of(seq, forge), seq, FaultKind.AUTHORITY)


def test_a_capture_that_advances_no_position_is_found() -> None:
    captured = last("capture_hold")

    def forge(record: Record) -> Record:
        kept = [each for each in record.changed if each.noun != "position"]
        return structs.replace(record, changed=tuple(kept))

    is_at(fault_of(captured.seq, forge), captured.seq, FaultKind.AUTHORITY)


def test_the_head_of_a_listing_is_of_the_listing_that_was_signed() -> None:
    published = next(r for r in RECORDS if r.operation == "publish_listing")

    fault = fault_of(published.seq, after("listing", rate_card_sha256="0" * 64))

    is_at(fault, published.seq, FaultKind.SIGNATURE)


def test_only_payouts_of_the_same_account_give_way_to_one_that_left_after_all() -> None:
    treasury = Treasury(Trade.opened())
    treasury.refund(treasury.trade.captured(3), 10**6)
    treasury.room.advance(10**6)
    first = treasury.payout(10**6).changed[0].id
    treasury.event(first, "failed", "evt_1")
    available = treasury.trade.balance(treasury.trade.vendor, "vendor_payable")
    treasury.payout(available)
    said = treasury.event(first, "paid", "evt_2")
    records = [parse_record(data)[0] for data in treasury.room.journal]

    def forge(record: Record) -> Record:
        left, way = record.changed
        return structs.replace(record, changed=(structs.replace(left, after=way.after), way))

    assert [each.after["status"] for each in said.changed] == ["paid", "failed"]
    assert audited(rewritten(records, 0, forge)).fault is None
    is_at(audited(rewritten(records, said.seq, forge)).fault, said.seq, FaultKind.LEDGER)


@pytest.mark.parametrize("operation", ["refund_charge", "settle_charge"])
@pytest.mark.parametrize("members", [{"dispute_id": "dsp_x"}, {"corrected": [["1", {}]]}])
def test_no_charge_is_disputed_or_corrected_by_the_way(
    operation: str, members: dict[str, Json]
) -> None:
    record = last(operation)
    is_at(fault_of(record.seq, after("charge", **members)), record.seq, FaultKind.CHARGE)


@pytest.mark.parametrize("member", ["event_id", "reference"])
@pytest.mark.parametrize("said", ["confirm_top_up", "paid", "reversed"])
def test_a_payment_has_the_processors_own_id_of_it(member: str, said: str) -> None:
    treasury = Treasury(Trade.opened())
    top_up_id = treasury.top_up(10**6)
    if said == "confirm_top_up":
        treasury.ask(treasury.treasurer, said, top_up_id=top_up_id, reference="wire-1")
    else:
        treasury.event(top_up_id, "paid", "evt_1")
    if said == "reversed":
        treasury.event(top_up_id, "reversed", "evt_2", units="1")
    records = [parse_record(data)[0] for data in treasury.room.journal]
    seq = records[-1].seq

    assert audited(rewritten(records, 0, after("top_up"))).fault is None
    fault = audited(rewritten(records, seq, after("top_up", **{member: "another"}))).fault
    is_at(fault, seq, FaultKind.LEDGER)


def test_no_key_takes_anothers_place_whose_holder_has_not_shown_it() -> None:
    trade = Trade.opened()
    assert rotate(trade.room, trade.vendor, "Vendor Two").refusal is None
    records = [parse_record(data)[0] for data in trade.room.journal]
    shown = {
        "new": signing_key("Vendor Two").thumbprint,
        "old": trade.vendor.key_thumbprint,
        "principal": trade.vendor.principal_id,
    }
    stolen = sign_detached(signing_key("Another"), Typ.ROTATION, canonical_bytes(dict(shown)))

    def forge(record: Record) -> Record:
        return structs.replace(record, facts={**(record.facts or {}), "possession": stolen})

    seq = records[-1].seq
    assert audited(rewritten(records, 0, forge)).fault is None
    is_at(audited(rewritten(records, seq, forge)).fault, seq, FaultKind.KEY)


@pytest.mark.parametrize(
    ("noun", "members", "kind"),
    [("key", {"jwk": True}, FaultKind.KEY), ("grace", {"chosen_units": []}, FaultKind.LEDGER)],
)
def test_what_is_of_no_form_is_named_too(
    noun: str, members: dict[str, Json], kind: FaultKind
) -> None:
    records = [parse_record(data)[0] for data in treasured()]
    seq = next(r.seq for r in records for each in r.changed if each.noun == noun)

    fault = audited(rewritten(records, seq, after(noun, **members))).fault

    is_at(fault, seq, kind)
