"""A session's lane without signatures: how seldom a buyer signs."""

from collections import deque
from itertools import pairwise
from typing import Final

import pytest

from farthing.clients.maclane import MacLane
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.proofs import Voucher
from farthing.protocol.vouchers import MAC_KEY_BYTES

PER_CALL: Final = 10
OUT: Final = 8


def voucher(seq: int) -> Voucher:
    return Voucher(
        agreement_id=AgreementId("agr_1"),
        session_id=SessionId("ses_1"),
        args_sha256="a" * 64,
        seq=seq,
        max_cum_units=(seq + OUT) * PER_CALL,
        ack="",
    )


def signed_of(calls: int, *, out: int, unsigned_calls: int, lost: int = 0) -> list[int]:
    """Which calls are signed, where an answer comes when so many others have left since.

    No answer comes to the one that is `lost`.
    """
    lane = MacLane(bytes(MAC_KEY_BYTES), unsigned_calls * PER_CALL)
    lane.arrived(0)
    away: deque[tuple[int, bool]] = deque()
    signed: list[int] = []
    for seq in range(1, calls + 1):
        lane.began(seq, PER_CALL)
        by_mac = bool(lane.mac(voucher(seq)))
        if not by_mac:
            signed.append(lane.to_sign(voucher(seq)).seq)
        if seq == lost:
            lane.landed(seq)
            continue
        away.append((seq, by_mac))
        if len(away) == out:
            answered, was_by_mac = away.popleft()
            if not was_by_mac:
                lane.arrived(answered)
            lane.ended(answered, PER_CALL)
    return signed


def test_while_one_signature_is_on_its_way_no_other_call_needs_one() -> None:
    signed = signed_of(400, out=OUT, unsigned_calls=4 * OUT)

    assert 400 / (4 * OUT) <= len(signed) <= 400 / OUT
    assert min(later - sooner for sooner, later in pairwise(signed)) >= OUT


def test_who_makes_one_call_at_a_time_signs_no_sooner_than_it_must() -> None:
    assert signed_of(100, out=1, unsigned_calls=9) == [*range(10, 101, 10)]


@pytest.mark.parametrize("lost", [5, 10, 11])
def test_a_call_that_was_lost_makes_nobody_sign_sooner(lost: int) -> None:
    alone = signed_of(100, out=1, unsigned_calls=9, lost=lost)
    together = signed_of(400, out=OUT, unsigned_calls=4 * OUT, lost=lost)

    assert len(alone) <= 11
    assert len(together) <= 400 / OUT


@pytest.mark.parametrize("out", [2, OUT, 4 * OUT])
@pytest.mark.parametrize("times", [1, 2, 4])
def test_none_signs_more_often_than_who_waits_for_the_bound(out: int, times: int) -> None:
    signed = signed_of(400, out=out, unsigned_calls=times * out)

    # Once above the bound it signs each call until the first of these is answered.
    assert len(signed) <= 400 * out / (times * out + 1)
