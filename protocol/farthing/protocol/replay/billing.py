"""The records that make a session's charge: the opening, and the report that bills it.

Boundary: two records and what they rest on; what was spent of the session before is not among them.
Source: spec/evidence.md, spec/sessions.md, spec/metering.md.
"""

from collections.abc import Iterator

from farthing.protocol.batches import verify_batch
from farthing.protocol.canonical import Json
from farthing.protocol.documents import DocumentError
from farthing.protocol.errors import Unverified
from farthing.protocol.ids import SessionId
from farthing.protocol.ledger import Movement
from farthing.protocol.money import format_units
from farthing.protocol.proofs import ProofError, Voucher, read_voucher
from farthing.protocol.rating import line_document, rate
from farthing.protocol.rating.running import Running
from farthing.protocol.records import Record
from farthing.protocol.replay.blocks import amount_of, billed, charged, end_us, opened, reserved
from farthing.protocol.replay.reading import (
    JsonObject,
    integer,
    member,
    only,
    quantities,
    require,
    same_postings,
    text_fact,
    units,
)
from farthing.protocol.replay.shares import drawn_of, payer_parts, payers
from farthing.protocol.replay.story import Story
from farthing.protocol.signatures import InvalidSignature, Typ
from farthing.protocol.times import utc_day
from farthing.protocol.usage import REPORT_WINDOW_US, Columns, read_batch

__all__ = ["follow_report", "follow_session"]


def follow_session(story: Story, record: Record) -> None:
    """The session's cap, set aside under the agreement for its buyer."""
    agreement = story.the_agreement()
    require(record.by.principal_id == agreement["buyer_id"], record, "another than the buyer opens")
    named = record.asked.get("agreement_id") == agreement["agreement_id"]
    require(named, record, "it is opened under another agreement")
    session = _changed(record, "session", "session_id")
    cap_units, day = amount_of(record.asked, "cap"), utc_day(record.at_us)
    expected: JsonObject = {
        **opened(record, agreement),
        "cap_units": str(cap_units),
        "counted": {day: str(cap_units)},
    }
    if "drawn" in session:
        expected["drawn"] = session["drawn"]
    require(session == expected, record, "the session does not follow")
    aside = payer_parts(session, drawn_of(session), cap_units)
    same_postings(record, reserved(session, aside, Movement.PENDING))
    counted = [(count.grant_id, count.day, count.units) for count in record.counted]
    require(counted == [(session["grant_id"], day, cap_units)], record, "it counts otherwise")
    payer = story.keys.keys_of(record.by.principal_id, Typ.VOUCHER)(record.by.key_thumbprint)
    assert payer is not None, "who asks holds a key in force"
    story.session, story.payer = session, payer
    asset = member(session, "asset")
    story.proved.append(
        f"session {session['session_id']} set {format_units(cap_units, asset)} {asset} aside, at "
        f"most {format_units(units(session, 'per_call_units'), asset)} {asset} for a call"
    )


def follow_report(story: Story, record: Record) -> None:
    """The vendor's signed batch and the buyer's voucher, rated event by event, posted once."""
    before, agreement = story.the_session(), story.the_agreement()
    session_id, vendor_id = member(before, "session_id"), record.by.principal_id
    require(record.asked.get("session_id") == session_id, record, "it is of another session")
    require(vendor_id == before["vendor_id"], record, "another than the vendor reports")
    voucher, columns = _signed(story, record)
    session, charge = (_changed(record, noun, f"{noun}_id") for noun in ("session", "charge"))
    in_time = record.at_us < end_us(session) + REPORT_WINDOW_US
    require(in_time, record, "it is reported too late")
    _fits_voucher(record, session, voucher)
    usage = _rated(story, record, columns, session, charge)
    amount_units = sum(_amounts(record))
    expected = charged(record, before, agreement, amount_units, usage)
    for name in charge.keys() | expected.keys():
        if name not in {"position", "drawn"}:
            same = charge.get(name) == expected.get(name)
            require(same, record, f"charge.{name} does not follow")
    same_postings(record, billed(charge))
    require(not record.counted, record, "the authority grant is charged otherwise")
    # Of the session, this much was set aside for the charge, and all of it was billed.
    aside = reserved(charge, payers(charge), Movement.PENDING)
    story.moved += [*aside, *record.moved]
    story.hold, story.charge, story.report = charge, charge, record
    asset = member(charge, "asset")
    story.proved.append(
        f"{vendor_id} signed {len(columns.seqs)} usage events of session {session_id}, and the "
        f"payer's key a voucher for calls up to {voucher.seq} and "
        f"{format_units(voucher.max_cum_units, asset)} {asset} in all"
    )
    story.proved.append(
        f"charge {charge['charge_id']} of {format_units(amount_units, asset)} {asset} is what the "
        "card gives for the billed events from the charge's position, "
        f"{format_units(units(charge, 'fee_units'), asset)} {asset} of it the platform's fee"
    )


def _signed(story: Story, record: Record) -> tuple[Voucher, Columns]:
    session = story.the_session()
    session_id = SessionId(member(session, "session_id"))
    data = text_fact(record, "usage").encode()
    keys = story.keys.keys_of(record.by.principal_id, Typ.USAGE)
    assert story.payer is not None, "known since the opening"
    try:
        signed = verify_batch(text_fact(record, "usage_signature"), session_id, data, keys)
        columns = read_batch(data, session_id)
        voucher = read_voucher(
            text_fact(record, "voucher"), story.payer, member(session, "agreement_id")
        )
    except (InvalidSignature, DocumentError, ProofError) as error:
        text = f"record {record.seq} ({record.operation}): a signed part: {error}"
        raise Unverified(text) from error
    require(voucher.session_id == session_id, record, "the voucher is of another session")
    same = signed.root == text_fact(record, "usage_root")
    require(same, record, "its batch has another root")
    return voucher, columns


def _fits_voucher(record: Record, session: JsonObject, voucher: Voucher) -> None:
    """What is billed is below the best sum seen, which is no lower than this voucher's."""
    best_seq, best_units = integer(session, "voucher_seq"), units(session, "max_cum_units")
    seen = voucher.seq <= best_seq and voucher.max_cum_units <= best_units
    require(seen, record, "the session knows less than the voucher says")
    spent_units = units(session, "spent_units")
    covered = spent_units <= min(best_units, units(session, "cap_units"))
    require(covered, record, "more is billed than was authorised")


def _rated(
    story: Story, record: Record, columns: Columns, session: JsonObject, charge: JsonObject
) -> dict[str, int]:
    """Rate the events that were not rejected, in order; gives the usage that is billed."""
    amounts, rejected = _amounts(record), dict(_rejected(record))
    require(len(amounts) == len(columns.seqs), record, "an event has no amount")
    same = all(columns.seqs[place] == call for place, call in rejected.items())
    require(same, record, "what is rejected has another number")
    taken = [seq for place, seq in enumerate(columns.seqs) if place not in rejected]
    span = [min(taken), max(taken)] if taken else []
    require((record.decided or {})["span"] == span, record, "its calls are of another span")
    running = Running(story.the_offer().card, quantities(charge["position"]))
    usage: dict[str, int] = {}
    calls = 0
    for place, amount_units in enumerate(amounts):
        expected_units = 0
        if place not in rejected and columns.is_billed(place):
            used = columns.usage_of(place)
            expected_units = running.price(used)
            running.take()
            calls += 1
            for meter, quantity in used.items():
                usage[meter] = usage.get(meter, 0) + quantity
        require(amount_units == expected_units, record, f"the card gives event {place} another")
        within = amount_units <= units(session, "per_call_units")
        require(within, record, f"event {place} costs more than a call may")
    rating = rate(story.the_offer().card, quantities(charge["position"]), usage)
    lines: list[Json] = [line_document(line) for line in rating.lines]
    found = ((record.decided or {})["lines"], (record.decided or {})["billed"])
    require(found == (lines, calls), record, "the card gives other lines")
    return usage


def _amounts(record: Record) -> list[int]:
    amounts = (record.decided or {})["amounts"]
    if not isinstance(amounts, list):
        raise TypeError("the amounts are no list")
    return [int(str(each)) for each in amounts]


def _rejected(record: Record) -> Iterator[tuple[int, int]]:
    """The place and the number of each event that was not taken."""
    rejected = (record.decided or {})["rejected"]
    if not isinstance(rejected, list):
        raise TypeError("what is rejected is no list")
    for each in rejected:
        if not isinstance(each, list) or len(each) != 3:
            raise TypeError("what is rejected is told otherwise")
        place, _, call = each
        if not isinstance(place, int) or not isinstance(call, int):
            raise TypeError("what is rejected is told otherwise")
        yield place, call


def _changed(record: Record, noun: str, name: str) -> JsonObject:
    found = [change for change in record.changed if change.noun == noun]
    require(len(found) == 1, record, f"it changes {len(found)} of the noun {noun}")
    return only(found[0], name, record)
