"""Everything that can be wrong with the calls of `ASKS`, one by one: each with the code it gives.

A new code of the engine's, or a new operation, has its line here or a test fails.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from farthing.protocol.errors import Code, refuse
from farthing.protocol.money import PPM
from farthing.protocol.wire import Usage
from tests.settlement.engine.spoiling import (
    NOBODY,
    Wrong,
    absent,
    agreement_ended,
    all_pending,
    allowed_nothing,
    amount,
    burnt,
    closed,
    delivered,
    ended,
    foreign,
    found,
    frozen,
    full,
    full_clearing,
    given,
    given_up_and_spent,
    granted,
    held_on,
    just_sent,
    known_key,
    many_keys,
    more_meters,
    no_account,
    nobodys,
    overdrawn,
    own_proposal,
    poor,
    too_many,
    turned,
    used,
)

__all__ = ["APART", "ELSEWHERE", "FIRST", "OF_A_THING", "WRONGS"]

_AGREEMENT = (
    *nobodys("agreements", "agreement_id"),
    Wrong(Code.AGREEMENT_ENDED, "agreement ended", agreement_ended),
)
_AUTHORITY = (
    frozen("agent"),
    frozen("operator"),
    frozen("vendor"),
    granted(Code.AUTHORITY_MISSING, "grant revoked", revoked=True),
    granted(Code.AUTHORITY_EXPIRED, "grant expired", expires_at_us=1),
    granted(Code.VENDOR_NOT_ALLOWED, "vendor denied", vendors_allow=(NOBODY,)),
    granted(Code.CAPABILITY_NOT_ALLOWED, "capability denied", capabilities_allow=("other",)),
)
_MONEY = (
    *_AUTHORITY,
    granted(Code.PER_CALL_LIMIT_EXCEEDED, "over the call", per_call_units_max=1),
    granted(Code.BUDGET_EXCEEDED, "over the day", per_day_units_max=1),
    full("operator", "prepaid"),
    closed("operator", "prepaid"),
    closed("vendor", "vendor_payable"),
    poor("operator", "prepaid"),
)
_WORK = (
    *_AGREEMENT,
    given(Code.USAGE_INVALID, "no workload", workload=()),
    Wrong(Code.USAGE_INVALID, "unknown meter", more_meters),
    Wrong(Code.AMOUNT_OVERFLOW, "too many pages", too_many),
    *_MONEY,
    Wrong(Code.ALLOWANCE_EXCEEDED, "over the allowance", allowed_nothing),
)
_HOLD = (
    *nobodys("holds", "hold_id"),
    turned(Code.HOLD_RESOLVED, "holds", "hold_id", "captured", status="captured"),
    turned(Code.HOLD_EXPIRED, "holds", "hold_id", "overdue", expires_at_us=1),
)
_CHARGE = nobodys("charges", "charge_id")
_RETURN = (
    turned(
        Code.REFUND_EXCEEDS_CHARGE,
        "charges",
        "charge_id",
        "given back before",
        refunded_units=2 * 2_000_000,
    ),
    turned(Code.REFUND_EXCEEDS_CHARGE, "charges", "charge_id", "in dispute", status="disputed"),
    poor("vendor", "vendor_pending"),
)
_BAD_SIGNATURE = refuse(Code.SIGNATURE_INVALID)
_UNREADABLE = refuse(Code.USAGE_INVALID)
_ENDED: Final = given(
    Code.INVALID_ARGUMENT, "ended before it begins", expires_at="2020-01-01T00:00:00.000000Z"
)
_NOTHING: Final = amount(Code.INVALID_AMOUNT, "amount", amount="0")
_TOTAL: Final = (
    amount(Code.INVALID_AMOUNT, "total", amount="0"),
    amount(Code.ASSET_MISMATCH, "total", asset="EUR"),
)
_NOT_AGENTS: Final = foreign("principals", "principal_id", "organisation_id")

WRONGS: Final[Mapping[str, tuple[Wrong, ...]]] = {
    "accept_terms": (
        Wrong(
            Code.INVALID_ARGUMENT,
            "quoted from a position",
            lambda call: call.find(quote=replace(call.body.quote, position={"page": 1})),
        ),
        Wrong(
            Code.NOT_FOUND,
            "another's quote",
            lambda call: call.find(quote=replace(call.body.quote, buyer_id=NOBODY)),
        ),
        Wrong(
            Code.LISTING_UNAVAILABLE,
            "listing withdrawn",
            lambda call: call.turn("listings", call.trade.listing_id, state="withdrawn"),
        ),
        Wrong(
            Code.QUOTE_EXPIRED,
            "late",
            lambda call: call.find(quote=replace(call.body.quote, expires_at_us=1)),
        ),
        Wrong(
            Code.TERMS_CHANGED,
            "other terms",
            lambda call: call.turn("listings", call.trade.listing_id, terms_sha256="d" * 64),
        ),
        *(each for each in _AUTHORITY if each.says != "vendor frozen"),
    ),
    "add_key": (
        Wrong(Code.NOT_PERMITTED, "as many as there may be", many_keys),
        Wrong(Code.ALREADY_REGISTERED, "known key", known_key),
    ),
    "approve_allowance": (
        *_AGREEMENT,
        absent("allowance_id"),
        Wrong(Code.NOT_PERMITTED, "own proposal", own_proposal),
    ),
    "approve_registration": (absent("principal_id"), _NOT_AGENTS),
    "call_service": _WORK,
    "cancel_payout": (
        *nobodys("payouts", "payout_id", "organisation_id"),
        turned(Code.PAYMENT_RESOLVED, "payouts", "payout_id", "sent", status="sent"),
    ),
    "capture_hold": (
        *_HOLD,
        found(Code.SIGNATURE_INVALID, "nobody's key", key_thumbprint="nobody's"),
        turned(Code.ANSWER_AWAITED, "holds", "hold_id", "on answer", on_answer=True),
        Wrong(
            Code.DELIVERY_INVALID, "other arguments", lambda call: call.give(args_sha256="e" * 64)
        ),
        Wrong(Code.USAGE_INVALID, "unknown meter", delivered(quire=1)),
        Wrong(Code.AMOUNT_OVERFLOW, "too many pages", delivered(page=9 * 10**14)),
        Wrong(
            Code.CAPTURE_EXCEEDS_HOLD,
            "held for fewer",
            lambda call: call.turn("holds", call.ask.hold_id, workload={"page": 1}),
        ),
        turned(Code.CAPTURE_EXCEEDS_HOLD, "holds", "hold_id", "held for less", amount_units=1),
    ),
    "close_account": (
        absent("organisation_id"),
        given(Code.ACCOUNT_UNKNOWN, "never begun", account="partner_payable"),
        Wrong(Code.ACCOUNT_IN_USE, "something waits on it", held_on),
    ),
    "close_session": (*nobodys("sessions", "session_id"), ended("closed"), ended("closing")),
    "confirm_payout": (
        absent("payout_id"),
        Wrong(Code.INSUFFICIENT_FUNDS, "given up and not there", given_up_and_spent),
        turned(Code.PAYMENT_RESOLVED, "payouts", "payout_id", "paid", status="paid"),
    ),
    "confirm_top_up": (
        absent("top_up_id"),
        turned(Code.PAYMENT_RESOLVED, "top_ups", "top_up_id", "posted", status="posted"),
    ),
    "correct_usage": (
        *_CHARGE,
        found(Code.SIGNATURE_INVALID, "nobody's key", key_thumbprint="nobody's"),
        found(Code.SIGNATURE_INVALID, "it does not verify", fault=_BAD_SIGNATURE),
        found(Code.USAGE_INVALID, "unreadable", fault=_UNREADABLE),
        found(Code.USAGE_INVALID, "more than was used", billed={1: {}}),
        turned(Code.USAGE_INVALID, "charges", "charge_id", "of a hold", session_id=""),
        *_RETURN,
    ),
    "create_top_up": (_NOTHING, full("operator", "prepaid"), closed("operator", "prepaid")),
    "enrol_organisation": (Wrong(Code.ALREADY_REGISTERED, "known key", known_key),),
    "fail_payout": (
        absent("payout_id"),
        turned(Code.PAYMENT_RESOLVED, "payouts", "payout_id", "paid", status="paid"),
        Wrong(Code.PAYMENT_RESOLVED, "it may still be paid", just_sent),
    ),
    "fail_top_up": (
        absent("top_up_id"),
        turned(Code.PAYMENT_RESOLVED, "top_ups", "top_up_id", "posted", status="posted"),
    ),
    "freeze": (absent("principal_id"), _NOT_AGENTS),
    "fund_account": (
        _NOTHING,
        absent("organisation_id"),
        full("operator", "prepaid"),
        closed("operator", "prepaid"),
    ),
    "grant_credit": (
        _ENDED,
        _NOTHING,
        absent("organisation_id"),
        full("operator", "deferred_revenue"),
        closed("operator", "prepaid"),
    ),
    "initiate_dispute": (
        *_CHARGE,
        turned(Code.ALREADY_DISPUTED, "charges", "charge_id", "disputed", dispute_id="dsp_"),
        turned(Code.DISPUTE_WINDOW_CLOSED, "charges", "charge_id", "late", window_closes_at_us=1),
        turned(
            Code.NOT_DISPUTABLE, "charges", "charge_id", "nothing is left", refunded_units=4_000_000
        ),
    ),
    "open_session": (
        amount(Code.INVALID_AMOUNT, "cap", amount="0"),
        amount(Code.INVALID_AMOUNT, "per_call", amount="0"),
        amount(Code.INVALID_AMOUNT, "per_call", amount="9"),
        *_AGREEMENT,
        *_MONEY,
        amount(Code.ASSET_MISMATCH, "cap", asset="EUR"),
        amount(Code.ASSET_MISMATCH, "per_call", asset="EUR"),
    ),
    "place_hold": _WORK,
    "propose_allowance": (
        _ENDED,
        *_AGREEMENT,
        given(Code.USAGE_INVALID, "unknown meter", in_all=(Usage(meter="minute", quantity="1"),)),
    ),
    "publish_listing": (
        Wrong(
            Code.NOT_FOUND,
            "another's listing",
            lambda call: call.turn("listings", call.trade.listing_id, vendor_id=NOBODY),
        ),
        Wrong(
            Code.STALE,
            "published since",
            lambda call: call.turn("listings", call.trade.listing_id, version=2),
        ),
    ),
    "refund_charge": (
        _NOTHING,
        *_CHARGE,
        turned(Code.INVALID_AMOUNT, "charges", "charge_id", "in many parts", trail_seqs=(1,) * 128),
        amount(Code.ASSET_MISMATCH, "amount", asset="EUR"),
        *_RETURN,
    ),
    "register_agent": (
        absent("operator_id"),
        foreign("principals", "operator_id", "role"),
        Wrong(Code.ALREADY_REGISTERED, "known key", known_key),
    ),
    "release_hold": _HOLD,
    "report_usage": (
        *(each._replace(code=Code.USAGE_INVALID) for each in nobodys("sessions", "session_id")),
        found(Code.SIGNATURE_INVALID, "nobody's key", key_thumbprint="nobody's"),
        found(Code.SIGNATURE_INVALID, "it does not verify", fault=_BAD_SIGNATURE),
        ended("closed"),
        found(Code.USAGE_INVALID, "unreadable", fault=_UNREADABLE),
    ),
    "request_payout": (
        _NOTHING,
        frozen("vendor"),
        Wrong(Code.ACCOUNT_UNKNOWN, "nothing earned yet", no_account),
        Wrong(Code.INSUFFICIENT_FUNDS, "all of it pending", all_pending),
        poor("vendor", "vendor_payable"),
    ),
    "reverse_payout": (
        *_TOTAL,
        absent("payout_id"),
        turned(Code.INVALID_AMOUNT, "payouts", "payout_id", "of less", amount_units=1),
        full("vendor", "vendor_payable"),
        turned(Code.PAYMENT_RESOLVED, "payouts", "payout_id", "failed", status="failed"),
        turned(Code.PAYMENT_RESOLVED, "payouts", "payout_id", "come back", reversed_units=2**62),
    ),
    "reverse_top_up": (
        *_TOTAL,
        absent("top_up_id"),
        turned(Code.INVALID_AMOUNT, "top_ups", "top_up_id", "of less", amount_units=1),
        full("operator", "receivable"),
        poor("operator", "prepaid"),
        turned(Code.PAYMENT_RESOLVED, "top_ups", "top_up_id", "failed", status="failed"),
        turned(Code.PAYMENT_RESOLVED, "top_ups", "top_up_id", "gone back", reversed_units=2**62),
    ),
    "revoke_authority": (
        absent("agent_id"),
        foreign("principals", "agent_id", "organisation_id"),
        given(Code.NOT_FOUND, "no grant", asset="EUR"),
    ),
    "revoke_key": (
        absent("principal_id"),
        _NOT_AGENTS,
        foreign("keys", "key_thumbprint", "principal_id"),
    ),
    "rotate_key": (
        given(Code.NOT_FOUND, "absent replaces", replaces="nobody's"),
        Wrong(
            Code.NOT_FOUND,
            "foreign replaces",
            lambda call: call.give(replaces=call.trade.agent.key_thumbprint),
        ),
        Wrong(Code.ALREADY_REGISTERED, "known key", known_key),
    ),
    "send_payout": (
        absent("payout_id"),
        frozen("vendor"),
        turned(Code.PAYMENT_RESOLVED, "payouts", "payout_id", "paid", status="paid"),
    ),
    "set_authority": (
        _ENDED,
        absent("agent_id"),
        foreign("principals", "agent_id", "organisation_id"),
        amount(Code.ASSET_MISMATCH, "per_day_max", asset="EUR"),
    ),
    "set_grace": (
        absent("organisation_id"),
        closed("operator", "prepaid"),
        Wrong(Code.INSUFFICIENT_FUNDS, "more is in use", overdrawn),
    ),
    "set_partner": (
        Wrong(
            Code.INVALID_ARGUMENT,
            "its own partner",
            lambda call: call.give(partner_id=call.trade.vendor.principal_id),
        ),
        given(Code.INVALID_ARGUMENT, "more than there is", ppm=PPM),
        absent("subject_id"),
        absent("partner_id"),
    ),
    "submit_evidence": (
        *nobodys("disputes", "dispute_id"),
        turned(Code.DISPUTE_DECIDED, "disputes", "dispute_id", "decided", status="decided"),
        turned(Code.DISPUTE_WINDOW_CLOSED, "disputes", "dispute_id", "late", evidence_due_at_us=1),
    ),
    "terminate_agreement": _AGREEMENT,
    "top_up_session": (
        _NOTHING,
        *nobodys("sessions", "session_id"),
        Wrong(Code.AGREEMENT_ENDED, "agreement ended", agreement_ended),
        ended("closed"),
        turned(Code.SESSION_CLOSED, "sessions", "session_id", "over", expires_at_us=1),
        turned(Code.AMOUNT_OVERFLOW, "sessions", "session_id", "cap full", cap_units=2**63 - 1),
        *_MONEY,
        amount(Code.ASSET_MISMATCH, "amount", asset="EUR"),
    ),
    "unfreeze": (
        absent("principal_id"),
        _NOT_AGENTS,
        Wrong(
            Code.NOT_PERMITTED,
            "another's freeze",
            lambda call: call.turn("principals", call.ask.principal_id, frozen_by=("platform",)),
        ),
    ),
    "withdraw_credit": (
        _NOTHING,
        absent("lot_id"),
        Wrong(Code.AMOUNT_OVERFLOW, "the clearing full", full_clearing),
        amount(Code.ASSET_MISMATCH, "amount", asset="EUR"),
        turned(Code.INSUFFICIENT_FUNDS, "lots", "lot_id", "spent", free_units=1),
    ),
    "withdraw_funds": (
        _NOTHING,
        absent("organisation_id"),
        Wrong(Code.AMOUNT_OVERFLOW, "the clearing full", full_clearing),
        poor("operator", "prepaid"),
    ),
    "withdraw_listing": (absent("listing_id"), foreign("listings", "listing_id", "vendor_id")),
}


# What is looked at before anything that was asked.
FIRST: Final = (
    Wrong(Code.PROOF_REPLAYED, "proof used", burnt),
    Wrong(
        Code.KEY_REVOKED,
        "key revoked",
        lambda call: call.turn("keys", call.by.key_thumbprint, status="revoked"),
    ),
    Wrong(
        Code.NOT_PERMITTED,
        "key for another purpose",
        lambda call: call.turn("keys", call.by.key_thumbprint, purpose="other"),
    ),
    Wrong(Code.IDEMPOTENCY_CONFLICT, "idempotency key used", used),
    Wrong(
        Code.REGISTRATION_PENDING,
        "caller pending",
        lambda call: call.turn("principals", call.by.principal_id, status="pending"),
    ),
)

# Codes that are declared and given before the engine is asked, or after it has answered.
ELSEWHERE: Final[Mapping[str, frozenset[Code]]] = {
    "accept_terms": frozenset({Code.SIGNATURE_INVALID}),
    "add_key": frozenset({Code.INVALID_ARGUMENT, Code.SIGNATURE_INVALID}),
    "call_service": frozenset({Code.VENDOR_FAILED, Code.RESULT_EXPIRED}),
    "confirm_top_up": frozenset({Code.PROCESSOR_FAILED}),
    "create_top_up": frozenset({Code.INVALID_ARGUMENT, Code.PROCESSOR_FAILED}),
    "enrol_organisation": frozenset({Code.INVALID_ARGUMENT}),
    "publish_listing": frozenset({Code.LISTING_INVALID, Code.SIGNATURE_INVALID}),
    "register_agent": frozenset({Code.INVALID_ARGUMENT}),
    "request_payout": frozenset({Code.INVALID_ARGUMENT}),
    "rotate_key": frozenset({Code.INVALID_ARGUMENT, Code.SIGNATURE_INVALID}),
    "send_payout": frozenset({Code.PROCESSOR_FAILED}),
    "set_authority": frozenset({Code.INVALID_AMOUNT}),
    "submit_evidence": frozenset({Code.INVALID_ARGUMENT}),
}

# What cannot be wrong at once: an amount in another asset is held against no limit of this one, an
# argument is one thing at a time, and nothing is lacking of what never moved or has gone back.
APART: Final = frozenset({
    *(
        ("open_session", limit, f"{argument} {{'asset': 'EUR'}}")
        for limit in (
            "per_call {'amount': '9'}",
            "over the call",
            "over the day",
            "operator's prepaid full",
        )
        for argument in ("cap", "per_call")
    ),
    *(
        ("top_up_session", limit, "amount {'asset': 'EUR'}")
        for limit in ("over the call", "over the day", "operator's prepaid full")
    ),
    ("confirm_payout", "given up and not there", "paid"),
    ("refund_charge", "in many parts", "given back before"),
    ("reverse_payout", "vendor's vendor_payable full", "come back"),
    ("reverse_top_up", "operator's prepaid empty", "failed"),
    ("reverse_top_up", "operator's prepaid empty", "gone back"),
    ("reverse_top_up", "operator's receivable full", "gone back"),
    ("request_payout", "nothing earned yet", "all of it pending"),
    ("set_partner", "its own partner", "absent partner_id"),
    ("set_partner", "its own partner", "absent subject_id"),
})  # fmt: skip

# What is said of a thing, and so of the caller's own alone: it comes after `not_found`.
OF_A_THING: Final = frozenset({"another's freeze", "in many parts", "of less", "own proposal"})
