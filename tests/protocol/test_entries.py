"""The batch of a record stands on the line below it, bound by the record and by nothing else."""

import pytest
from msgspec.structs import replace

from farthing.protocol.errors import Unverified
from farthing.protocol.records import entries_in, line_of, parse_record, record_bytes
from tests.construction import Trade
from tests.entries import document_in, entry_of
from tests.protocol.replay.metered import Metered, events


def journal() -> list[bytes]:
    trade = Trade.opened()
    metered = Metered.opened(trade)
    for seq in (1, 2):
        metered.report(events(seq, 1, at_us=trade.room.now_us))
    metered.send(events(3, 1, at_us=trade.room.now_us), by=trade.operator)
    trade.captured(1)
    return trade.room.journal


ENTRIES = journal()
REPORTED = [each for each in ENTRIES if b"\n" in each]
PLAIN = ENTRIES[0]


def test_a_page_is_read_as_the_entries_it_was_made_of() -> None:
    assert len(REPORTED) == 2
    assert entries_in(b"\n".join(ENTRIES)) == ENTRIES
    assert entries_in(PLAIN) == [PLAIN]


@pytest.mark.parametrize("entry", REPORTED)
def test_an_entry_is_read_with_its_batch_and_without(entry: bytes) -> None:
    whole, prev = parse_record(entry)
    brief, same = parse_record(line_of(entry))

    assert whole.facts is not None
    assert (brief.facts, same) == (
        {name: value for name, value in whole.facts.items() if name != "usage"},
        prev,
    )
    assert record_bytes(whole, prev) == entry == entry_of(document_in(entry))


@pytest.mark.parametrize(
    "forged",
    [
        line_of(REPORTED[0]) + b"\n" + REPORTED[1].partition(b"\n")[2],
        REPORTED[0] + b" ",
        REPORTED[0] + b"\n[]",
        line_of(REPORTED[0]) + b"\n",
        line_of(REPORTED[0]) + b"\n\xff",
        PLAIN + b"\n[]",
        PLAIN + b"\n" + REPORTED[0].partition(b"\n")[2],
    ],
    ids=["another's", "longer", "two", "none", "no text", "below nothing", "below another"],
)
def test_a_text_that_is_not_the_batch_of_its_record_is_found(forged: bytes) -> None:
    with pytest.raises(Unverified):
        parse_record(forged)


def test_a_record_cannot_hold_the_text_itself() -> None:
    record, prev = parse_record(PLAIN)
    line = record_bytes(replace(record, facts={"usage_": "[]"}), prev)
    with pytest.raises(Unverified, match="in itself"):
        parse_record(line.replace(b'"usage_"', b'"usage"'))
