"""A payment is checked offline: the platform's entitlement, the payer's voucher, this very call."""

from dataclasses import replace
from typing import Any

import pytest

from farthing.clients.entitlements import Paid, check_payment, claimed_hold
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import (
    AgreementId,
    HoldId,
    ListingId,
    OrganisationId,
    PrincipalId,
    derive_id,
)
from farthing.protocol.keys import PrivateKey
from farthing.protocol.proofs import Entitlement, Voucher, entitlement_jwt, voucher_jwt
from farthing.protocol.times import SECOND_US
from farthing.protocol.x402 import (
    Presented,
    Price,
    Settlement,
    Used,
    network_of,
    payment,
    payment_required,
    read_payment,
    read_refusal,
    read_settlement,
    read_used,
    settlement,
    unsettled,
    used,
)

PLATFORM = "https://market.example"
PLATFORM_KEY = PrivateKey.from_seed(bytes(range(32)))
PAYER = PrivateKey.from_seed(bytes(32))
NOW_US = 1_795_176_000 * SECOND_US
ARGS, LATER_US = "a" * 64, NOW_US + 60 * SECOND_US
ENTITLEMENT = Entitlement(
    hold_id=HoldId(derive_id("hld", "h")),
    agreement_id=AgreementId(derive_id("agr", "g")),
    listing_id=ListingId(derive_id("lst", "l")),
    vendor_id=OrganisationId(PrincipalId(derive_id("org", "v"))),
    buyer_id=PrincipalId(derive_id("agt", "a")),
    payer_jwk=PAYER.public.jwk(),
    cap_units=1000,
    asset="USD",
    card_sha256="c" * 64,
    expires_at_us=LATER_US,
    issuer=PLATFORM,
    args_sha256=ARGS,
)
VOUCHER = Voucher(
    agreement_id=ENTITLEMENT.agreement_id,
    hold_id=ENTITLEMENT.hold_id,
    args_sha256=ARGS,
    seq=1,
    max_cum_units=900,
    ack="",
)
PRICE = Price(
    tool="extract_text",
    platform=PLATFORM,
    vendor_id=ENTITLEMENT.vendor_id,
    listing_id=ENTITLEMENT.listing_id,
    listing_sha256="1" * 64,
    rate_card_sha256="2" * 64,
    terms_sha256="3" * 64,
    asset="USD",
    amount_units=900,
    exact=False,
    deadline_s=60,
)


def presented(
    entitlement: Entitlement = ENTITLEMENT,
    voucher: Voucher = VOUCHER,
    *,
    platform_key: PrivateKey = PLATFORM_KEY,
    payer: PrivateKey = PAYER,
    vouched_at_us: int = NOW_US,
) -> Presented:
    return Presented(
        entitlement=entitlement_jwt(platform_key, entitlement, NOW_US),
        voucher=voucher_jwt(payer, voucher, now_us=vouched_at_us, jti="j", lifetime_s=300),
    )


def check(tokens: Presented, **other: Any) -> Paid | Refusal:
    return check_payment(
        tokens,
        **{
            "platform_key_of": {PLATFORM_KEY.thumbprint: PLATFORM_KEY.public}.get,
            "platform": PLATFORM,
            "vendor_id": ENTITLEMENT.vendor_id,
            "listing_id": ENTITLEMENT.listing_id,
            "args_sha256": ARGS,
            "now_us": NOW_US,
            **other,
        },
    )


def code(outcome: Paid | Refusal) -> Code:
    assert isinstance(outcome, Refusal)
    return outcome.code


def test_a_payment_for_this_call_holds_up_to_the_lower_of_both_caps() -> None:
    paid = check(presented())

    assert isinstance(paid, Paid)
    assert paid.entitlement == ENTITLEMENT
    assert paid.cap_units == 900


@pytest.mark.parametrize(
    "tokens",
    [
        presented(platform_key=PAYER),
        presented(payer=PLATFORM_KEY),
        presented(replace(ENTITLEMENT, issuer="https://other.example")),
        presented(
            replace(ENTITLEMENT, vendor_id=OrganisationId(PrincipalId(derive_id("org", "w"))))
        ),
        presented(replace(ENTITLEMENT, listing_id=ListingId(derive_id("lst", "m")))),
        presented(replace(ENTITLEMENT, args_sha256="b" * 64)),
        presented(voucher=replace(VOUCHER, args_sha256="b" * 64)),
        presented(voucher=replace(VOUCHER, hold_id=HoldId(derive_id("hld", "i")))),
        presented(voucher=replace(VOUCHER, agreement_id=AgreementId(derive_id("agr", "h")))),
        presented(voucher=replace(VOUCHER, max_cum_units=1001)),
        Presented(entitlement=presented().voucher, voucher=presented().voucher),
        Presented(entitlement=presented().entitlement, voucher=presented().entitlement),
        Presented(entitlement="x", voucher="y"),
    ],
)
def test_a_payment_for_anything_else_does_not(tokens: Presented) -> None:
    assert code(check(tokens)) is Code.PROOF_INVALID


def test_arguments_that_were_not_paid_for_are_refused() -> None:
    assert code(check(presented(), args_sha256="b" * 64)) is Code.PROOF_INVALID


def test_a_payment_ends_with_its_hold_and_with_its_voucher() -> None:
    tokens = presented()

    assert isinstance(check(tokens, now_us=LATER_US - 1), Paid)
    assert code(check(tokens, now_us=LATER_US)) is Code.HOLD_EXPIRED
    assert (
        code(check(tokens, now_us=NOW_US + 300 * SECOND_US, done_at_us=NOW_US))
        is Code.PROOF_EXPIRED
    )


def test_what_was_done_in_time_can_be_asked_for_after_the_hold_has_ended() -> None:
    later_us = NOW_US + 86_400 * SECOND_US
    tokens = presented(vouched_at_us=later_us)

    assert code(check(tokens, now_us=later_us)) is Code.HOLD_EXPIRED
    assert isinstance(check(tokens, now_us=later_us, done_at_us=NOW_US), Paid)
    assert code(check(tokens, now_us=later_us, done_at_us=LATER_US)) is Code.HOLD_EXPIRED


def test_the_hold_is_read_from_any_token_and_from_no_rubbish() -> None:
    assert claimed_hold(presented()) == ENTITLEMENT.hold_id
    for rubbish in ("", "x", "a.b.c", "a.e30.c", "a.W10.c", "a.eyJob2xkX2lkIjoxfQ.c"):
        assert claimed_hold(Presented(entitlement=rubbish, voucher="")) == ""


def test_a_payment_survives_x402() -> None:
    tokens = presented()
    for each in (
        tokens,
        replace(tokens, mac_key="k"),
        Presented(entitlement=tokens.entitlement, mac="m"),
    ):
        assert read_payment(payment(PRICE, each), PLATFORM) == each


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"x402Version": 1}, "x402Version"),
        ({"accepted": {"scheme": "exact"}}, "accepted.scheme"),
        ({"accepted": {"scheme": "upto", "network": "eip155:1"}}, "accepted.network"),
        ({"accepted": None}, "accepted.scheme"),
        ({"payload": []}, "payload"),
        ({"payload": {"voucher": "v"}}, "payload.entitlement"),
        ({"payload": {"entitlement": "e", "voucher": ""}}, "payload.voucher"),
        ({"payload": {"entitlement": "e" * 9000, "voucher": "v"}}, "payload.entitlement"),
        ({"payload": {"entitlement": "e", "voucher": "v", "mac": "m"}}, "payload.voucher"),
        ({"payload": {"entitlement": "e", "mac": "m", "mac_key": "k"}}, "payload.voucher"),
        ({"payload": {"entitlement": "e", "voucher": "v", "mac_key": 1}}, "payload.mac_key"),
    ],
)
def test_a_payment_of_another_kind_is_refused_with_its_place(
    changed: dict[str, Any], path: str
) -> None:
    sent = {**payment(PRICE, Presented(entitlement="e", voucher="v")), **changed}

    refusal = read_payment(sent, PLATFORM)

    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.path) == (Code.PROOF_INVALID, f"x402/payment.{path}")


def test_no_payment_is_no_mistake() -> None:
    refusal = read_payment(None, PLATFORM)

    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.UNAUTHENTICATED


def test_a_network_is_a_caip_2_name_of_the_platform() -> None:
    namespace, reference = network_of(PLATFORM).split(":")

    assert (len(namespace), len(reference)) == (8, 32)
    assert network_of(PLATFORM) != network_of("https://other.example")


def test_a_settlement_survives_x402_and_a_failed_one_is_none() -> None:
    settled = Settlement(
        charge_id="chg_x",
        hold_id=str(ENTITLEMENT.hold_id),
        amount_units=12,
        delivery={"schema": "farthing-delivery/1"},
        delivery_signature="s",
    )
    said = settlement(settled, payer=ENTITLEMENT.buyer_id, platform=PLATFORM)

    assert read_settlement(said) == settled
    for other in (
        None,
        {},
        unsettled(refuse(Code.VENDOR_FAILED), PLATFORM),
        {**said, "extra": 1},
        {**said, "amount": "-1"},
        {**said, "extra": {"delivery": 1}},
    ):
        assert read_settlement(other) is None


def test_what_a_call_of_a_session_used_survives_x402_and_half_of_it_is_nothing() -> None:
    call = Used(
        session_id=derive_id("ses", "s"),
        seq=17,
        usage={"page": 3, "token": 0},
        amount_units=12,
        spent_units=40,
        result_sha256="d" * 64,
    )
    said: Any = used(call, payer=ENTITLEMENT.buyer_id, platform=PLATFORM)

    assert read_used(said) == call
    assert said["transaction"] == f"{call.session_id}/17"
    assert read_settlement(said) is None
    for other in (
        None,
        unsettled(refuse(Code.VENDOR_FAILED), PLATFORM),
        {**said, "extra": 1},
        {**said, "amount": "-1"},
        {**said, "extra": {**said["extra"], "seq": True}},
        {**said, "extra": {**said["extra"], "spent": 40}},
        {**said, "extra": {**said["extra"], "usage": {"page": "3.0"}}},
        {**said, "extra": {**said["extra"], "usage": {"\u00e9": "3"}}},
        {**said, "extra": {**said["extra"], "usage": {"\ud800": "3"}}},
        {**said, "extra": {**said["extra"], "result_sha256": "d" * 65}},
    ):
        assert read_used(other) is None


def test_a_refusal_is_found_in_both_shapes() -> None:
    refusal = refuse(Code.HOLD_EXPIRED)
    required: Any = payment_required(PRICE, refusal)
    plain: Any = refusal.document()

    for shape in (required, plain):
        found = read_refusal(shape)
        assert found is not None
        assert found.code is Code.HOLD_EXPIRED
    no_codes = read_refusal({**plain, "reasons": [[], {}, None, "frozen"]})
    assert no_codes is not None
    assert no_codes.reasons == (Code.FROZEN,)
    assert read_refusal({"result": "x"}) is None
    assert read_refusal("text") is None
