"""A record in brief is the record without the text of its batch, and nothing else is missing."""

import pytest
from msgspec.structs import replace

from farthing.protocol.calls import REPORT_USAGE, brief_of
from farthing.protocol.records import parse_record, read_record, record_bytes
from tests.construction import Trade
from tests.protocol.replay.metered import Metered, events

HOSTILE = '"facts":{"usage":"[x]","usage_signature":"'


def reported() -> Trade:
    trade = Trade.opened()
    metered = Metered.opened(trade)
    metered.report(events(1, 1, at_us=trade.room.now_us))
    metered.report(events(1, 1, at_us=trade.room.now_us))
    return trade


@pytest.mark.parametrize("data", reported().room.journal)
def test_a_record_in_brief_lacks_the_text_of_its_batch_alone(data: bytes) -> None:
    record, prev = parse_record(data)
    brief, same_prev = read_record(brief_of(data))
    if record.operation == REPORT_USAGE:
        assert record.facts is not None
        assert record.facts["usage"]
        record = replace(record, facts={**record.facts, "usage": ""})
    assert (brief, same_prev) == (record, prev)


def test_no_text_in_a_record_passes_for_the_batch() -> None:
    record, prev = parse_record(reported().room.journal[1])
    data = record_bytes(replace(record, asked={**record.asked, "note": HOSTILE}), prev)
    assert brief_of(data) == data
