"""A session's lane without signatures: how seldom a buyer signs."""

from collections import deque
from itertools import pairwise
from typing import Final

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


def signed_of(calls: int, *, out: int, unsigned_calls: int) -> list[int]:
    """Which calls are signed, where an answer comes when so many others have left since."""
    lane = MacLane(bytes(MAC_KEY_BYTES), unsigned_calls * PER_CALL)
    lane.arrived(0)
    away: deque[tuple[int, bool]] = deque()
    signed: list[int] = []
    for seq in range(1, calls + 1):
        lane.began(seq, PER_CALL)
        by_mac = bool(lane.mac(voucher(seq)))
        if not by_mac:
            signed.append(lane.to_sign(voucher(seq)).seq)
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


def test_where_more_calls_are_out_than_may_run_unsigned_nearly_every_one_is_signed() -> None:
    assert len(signed_of(400, out=2 * OUT, unsigned_calls=OUT)) > 200
