"""The bundle of a real trade, made by the real engine and sealed in batches by a real key."""

from collections.abc import Iterator, Sequence

from msgspec import structs

from farthing.protocol.bundles import bundle_lines
from farthing.protocol.chain import Chain
from farthing.protocol.checkpoints import Checkpoint, sign_checkpoint
from farthing.protocol.keys import PrivateKey
from farthing.protocol.merkle import Tree, leaf_hash
from farthing.protocol.records import line_of, parse_record
from tests.construction import Trade
from tests.protocol.evidence_market import JOURNAL_KEY, ORIGIN, QUOTE_KEY, Told
from tests.protocol.replay.metered import Metered, events
from tests.settlement.engine.treasurer import Treasury

__all__ = ["BATCH", "batches", "bundled", "traded", "treasured", "ungraced"]

BATCH = 4


def traded() -> Told:
    """A market with a charge, a refund, a dispute, an expired hold and a refusal."""
    told = Told.of(rotated=True, held=14)
    told.refund(1_000)
    told.dispute("not_delivered")
    told.trade.room.advance(10**6)
    told.trade.held(3)
    told.trade.room.advance(10**6)
    told.trade.room.hold(told.trade.agent, told.trade.agreement_id, 10**6)
    told.trade.held(2)
    metered, now_us = Metered.opened(told.trade), told.trade.room.now_us
    metered.report([*events(1, 3, at_us=now_us), *events(1, 3, at_us=now_us)])
    metered.send(events(2, 3, at_us=now_us), by=told.trade.operator)
    return told


def treasured() -> list[bytes]:
    """A market with a partner, credit lots, a grace that is used, top-ups, a payout, a debt."""
    trade = Trade.opened(funds=10**7)
    room, treasury = trade.room, Treasury(trade)
    treasury.partner(room.organisation("operator", "Partner One"), 100_000)
    treasury.grant_credit(5 * 10**6)
    treasury.grant_credit(3 * 10**6, "promotional")
    assert treasury.grace(2 * 10**7).refused is None
    trade.agreement_id = room.agree(trade.agent, trade.listing_id)
    charge_id = trade.captured(12)
    treasury.refund(charge_id, 10**6)
    hold_id = trade.held(1)
    assert room.capture(trade.vendor, hold_id, 1).refused is None
    top_up_id = treasury.top_up(10**6)
    treasury.event(top_up_id, "paid", "evt_1")
    treasury.event(top_up_id, "reversed", "evt_2", units=str(10**6))
    treasury.top_up(2 * 10**6)
    room.advance(10**6)
    assert treasury.payout(10**6).refused is None
    assert min(account.available_units for account in room.state.accounts.values()) < 0
    return room.journal


def ungraced(records: Sequence[bytes]) -> list[bytes]:
    """The same journal as one would have written it that granted less grace than was used."""
    chain, written = Chain(), []
    for data in records:
        record = parse_record(data)[0]
        changed = tuple(
            structs.replace(each, after={**each.after, "granted_units": "1"})
            if each.noun == "grace"
            else each
            for each in record.changed
        )
        asked = record.asked
        if record.operation == "set_grace":
            asked = {**asked, "amount": {**asked["amount"], "amount": "0.000000001"}}
        written.append(chain.bytes_of(structs.replace(record, asked=asked, changed=changed)))
        chain.add(written[-1])
    return written


def batches(
    records: Sequence[bytes], key: PrivateKey = JOURNAL_KEY
) -> Iterator[tuple[Sequence[bytes], str]]:
    """The records, some at a time, each time under a signed head."""
    tree = Tree()
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        for data in batch:
            tree.append(leaf_hash(line_of(data)))
        head = Checkpoint(origin=ORIGIN, size=tree.size, root=tree.root())
        yield batch, sign_checkpoint(key, head)


def bundled(records: Sequence[bytes], key: PrivateKey = JOURNAL_KEY) -> list[bytes]:
    """The lines of the bundle."""
    lines = bundle_lines(
        batches(records, key),
        origin=ORIGIN,
        journal_keys=[key.public],
        quote_keys=[QUOTE_KEY.public],
    )
    return list(lines)
