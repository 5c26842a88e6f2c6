"""The closed set of refusals, in order of precedence, and the one exception tree.

Boundary: pure code returns a `Refusal`; shells raise `Refused(refusal)`, which the doors render;
the client parses the wire and raises the same class. Source: spec/errors.md.

    FarthingError                 never raised itself
    +-- Refused                   a refusal, as data: bad input, no authority, no money
    +-- Broken                    an invariant does not hold: the writer stops
    +-- Unreachable               the other side could not be reached or did not answer
    +-- Unverified                a document, receipt or journal does not verify
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Broken",
    "Code",
    "FarthingError",
    "NextAction",
    "Refusal",
    "Refused",
    "Severity",
    "Unreachable",
    "Unverified",
    "refuse",
]


class Code(StrEnum):
    """Every refusal there is. The order of members is the order of precedence.

    One input has one answer: where several apply, the first in this list is given.
    """

    # The door: shape and size, before anybody is known.
    PAYLOAD_TOO_LARGE = "payload_too_large"
    MALFORMED = "malformed"
    DUPLICATE_KEY = "duplicate_key"
    UNKNOWN_OPERATION = "unknown_operation"
    # Who is calling.
    UNAUTHENTICATED = "unauthenticated"
    PROOF_INVALID = "proof_invalid"
    PROOF_EXPIRED = "proof_expired"
    UNKNOWN_KEY = "unknown_key"
    ASSURANCE_REQUIRED = "assurance_required"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    # What is asked.
    INVALID_ARGUMENT = "invalid_argument"
    INVALID_AMOUNT = "invalid_amount"
    # Judged by the engine, with the effect.
    PROOF_REPLAYED = "proof_replayed"
    KEY_REVOKED = "key_revoked"
    NOT_PERMITTED = "not_permitted"
    KEY_EXPIRED = "key_expired"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    REGISTRATION_PENDING = "registration_pending"
    NOT_FOUND = "not_found"
    STALE = "stale"
    # Final business refusals.
    ALREADY_REGISTERED = "already_registered"
    LISTING_INVALID = "listing_invalid"
    LISTING_UNAVAILABLE = "listing_unavailable"
    SIGNATURE_INVALID = "signature_invalid"
    QUOTE_EXPIRED = "quote_expired"
    TERMS_CHANGED = "terms_changed"
    AGREEMENT_ENDED = "agreement_ended"
    HOLD_RESOLVED = "hold_resolved"
    HOLD_EXPIRED = "hold_expired"
    ANSWER_AWAITED = "answer_awaited"
    SESSION_CLOSED = "session_closed"
    DELIVERY_INVALID = "delivery_invalid"
    USAGE_INVALID = "usage_invalid"
    AMOUNT_OVERFLOW = "amount_overflow"
    CAPTURE_EXCEEDS_HOLD = "capture_exceeds_hold"
    FROZEN = "frozen"
    AUTHORITY_MISSING = "authority_missing"
    AUTHORITY_EXPIRED = "authority_expired"
    VENDOR_NOT_ALLOWED = "vendor_not_allowed"
    CAPABILITY_NOT_ALLOWED = "capability_not_allowed"
    PER_CALL_LIMIT_EXCEEDED = "per_call_limit_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    ALLOWANCE_EXCEEDED = "allowance_exceeded"
    ASSET_MISMATCH = "asset_mismatch"
    REFUND_EXCEEDS_CHARGE = "refund_exceeds_charge"
    ACCOUNT_UNKNOWN = "account_unknown"
    ACCOUNT_CLOSED = "account_closed"
    ACCOUNT_IN_USE = "account_in_use"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    PAYMENT_RESOLVED = "payment_resolved"
    ALREADY_DISPUTED = "already_disputed"
    DISPUTE_DECIDED = "dispute_decided"
    DISPUTE_WINDOW_CLOSED = "dispute_window_closed"
    NOT_DISPUTABLE = "not_disputable"
    # A vendor's tool or the road to it.
    VENDOR_FAILED = "vendor_failed"
    RESULT_EXPIRED = "result_expired"
    LOCAL_LIMIT_EXCEEDED = "local_limit_exceeded"
    PROCESSOR_FAILED = "processor_failed"
    # Farthing's own fault.
    INTERNAL_ERROR = "internal_error"

    @property
    def precedence(self) -> int:
        """The place of this code in the order of precedence, 0 first."""
        return _PRECEDENCE[self]

    @property
    def says(self) -> str:
        """One plain sentence for a person."""
        return _SAYS[self]

    @property
    def retryable(self) -> bool:
        """Whether the same call, same key, can succeed later without anybody changing it."""
        return self in _RETRYABLE

    @property
    def is_business(self) -> bool:
        """Whether what was asked was judged, and not only who asked and for what."""
        return self.precedence >= Code.ALREADY_REGISTERED.precedence

    @property
    def remembered(self) -> bool:
        """Whether the refusal is final for its key and answered again (spec/idempotency.md)."""
        return self.is_business and self not in _FORGOTTEN


class Severity(StrEnum):
    """How much a caller should mind."""

    REFUSED = "refused"
    FAULT = "fault"


class NextAction(StrEnum):
    """What the caller can do about a refusal."""

    FIX_REQUEST = "fix_request"
    SIGN_AGAIN = "sign_again"
    REGISTER = "register"
    WAIT = "wait"
    RETRY = "retry"
    REDUCE = "reduce"
    REQUEST_APPROVAL = "request_approval"
    TOP_UP = "top_up"
    USE_OTHER_VENDOR = "use_other_vendor"
    QUOTE_AGAIN = "quote_again"
    NEW_KEY = "new_key"
    CONTACT_OPERATOR = "contact_operator"
    CONTACT_PLATFORM = "contact_platform"
    NONE = "none"


_SAYS: dict[Code, str] = {
    Code.PAYLOAD_TOO_LARGE: "The request is larger than this door takes.",
    Code.MALFORMED: "The request is not well-formed JSON of the protocol's alphabet.",
    Code.DUPLICATE_KEY: "The request names one JSON member twice.",
    Code.UNKNOWN_OPERATION: "There is no operation of this name.",
    Code.UNAUTHENTICATED: "This operation needs a signed request.",
    Code.PROOF_INVALID: "The proof does not fit this request.",
    Code.PROOF_EXPIRED: "The proof is outside its time.",
    Code.UNKNOWN_KEY: "No registered principal holds this key.",
    Code.ASSURANCE_REQUIRED: "This operation needs a stronger proof.",
    Code.RATE_LIMITED: "Too many requests.",
    Code.OVERLOADED: "The server's queue is full.",
    Code.UNAVAILABLE: "The platform cannot do it now; nothing happened.",
    Code.INVALID_ARGUMENT: "An argument does not have the documented form.",
    Code.INVALID_AMOUNT: "An amount is not a canonical decimal of its asset.",
    Code.PROOF_REPLAYED: "This proof has been used; sign the retry anew with the same key.",
    Code.KEY_REVOKED: "The signing key has been revoked or rotated away.",
    Code.NOT_PERMITTED: "The caller's role does not allow this operation.",
    Code.KEY_EXPIRED: "The idempotency key is older than the remembered horizon.",
    Code.IDEMPOTENCY_CONFLICT: "The idempotency key was used with another request.",
    Code.NOT_FOUND: "There is no such thing that the caller may see.",
    Code.STALE: "What was read has changed; read again.",
    Code.REGISTRATION_PENDING: "The registration has not been approved yet.",
    Code.ALREADY_REGISTERED: "This key is registered already.",
    Code.LISTING_INVALID: "The listing does not pass its checks; the report says where.",
    Code.LISTING_UNAVAILABLE: "The listing is not offered now.",
    Code.SIGNATURE_INVALID: "A signed document does not verify.",
    Code.QUOTE_EXPIRED: "The quote is past its time.",
    Code.TERMS_CHANGED: "The listing, its terms or its rate card changed since the quote.",
    Code.AGREEMENT_ENDED: "The agreement is no longer in force.",
    Code.FROZEN: "The agent or its organisation is frozen.",
    Code.AUTHORITY_MISSING: "The agent has no authority grant for this asset.",
    Code.AUTHORITY_EXPIRED: "The agent's authority grant has expired.",
    Code.VENDOR_NOT_ALLOWED: "The agent may not buy from this vendor.",
    Code.CAPABILITY_NOT_ALLOWED: "The agent may not buy this capability.",
    Code.PER_CALL_LIMIT_EXCEEDED: "The amount is above the agent's limit for one call.",
    Code.BUDGET_EXCEEDED: "The amount is above what remains of the agent's budget today.",
    Code.ALLOWANCE_EXCEEDED: "The use is beyond what the agreement's allowance leaves.",
    Code.ASSET_MISMATCH: "The amount is in another asset than the agreement.",
    Code.ACCOUNT_UNKNOWN: "The organisation has no such account.",
    Code.ACCOUNT_CLOSED: "The account is closed: nothing new begins on it.",
    Code.ACCOUNT_IN_USE: "The account is not empty, or something waits on it.",
    Code.PAYMENT_RESOLVED: "The top-up or payout has been decided already.",
    Code.INSUFFICIENT_FUNDS: "The operator's balance does not cover the amount.",
    Code.AMOUNT_OVERFLOW: "The amount does not fit the ledger.",
    Code.HOLD_RESOLVED: "The hold has been captured or released already.",
    Code.HOLD_EXPIRED: "The hold has expired.",
    Code.ANSWER_AWAITED: "The platform pays for this call once it has accepted the answer.",
    Code.SESSION_CLOSED: "The spend session is closed, or its time is over.",
    Code.CAPTURE_EXCEEDS_HOLD: "The usage costs more than the hold.",
    Code.USAGE_INVALID: "The usage does not fit the rate card.",
    Code.DELIVERY_INVALID: "The delivery record does not fit the hold or does not verify.",
    Code.REFUND_EXCEEDS_CHARGE: "More would be refunded than was charged.",
    Code.ALREADY_DISPUTED: "The charge has been disputed already.",
    Code.DISPUTE_WINDOW_CLOSED: "The dispute window has closed.",
    Code.NOT_DISPUTABLE: "The charge cannot be disputed for this reason.",
    Code.DISPUTE_DECIDED: "The dispute has been decided already.",
    Code.VENDOR_FAILED: "The vendor's tool did not deliver.",
    Code.RESULT_EXPIRED: "The result is no longer kept; its digest is.",
    Code.LOCAL_LIMIT_EXCEEDED: "The amount is above the ceiling kept on this machine.",
    Code.PROCESSOR_FAILED: "The payment processor did not do what it was asked.",
    Code.INTERNAL_ERROR: "Something went wrong on the server; nothing is known to have happened.",
}
_RETRYABLE = frozenset({
    Code.RATE_LIMITED, Code.OVERLOADED, Code.UNAVAILABLE, Code.STALE, Code.REGISTRATION_PENDING,
    Code.ANSWER_AWAITED, Code.PROCESSOR_FAILED, Code.INTERNAL_ERROR,
})  # fmt: skip
_FORGOTTEN = frozenset({
    Code.ANSWER_AWAITED, Code.VENDOR_FAILED, Code.RESULT_EXPIRED,
    Code.LOCAL_LIMIT_EXCEEDED, Code.PROCESSOR_FAILED, Code.INTERNAL_ERROR,
})  # fmt: skip
_PRECEDENCE = {code: place for place, code in enumerate(Code)}
_NEXT: dict[Code, NextAction] = {
    Code.UNAUTHENTICATED: NextAction.REGISTER,
    Code.PROOF_INVALID: NextAction.SIGN_AGAIN,
    Code.PROOF_EXPIRED: NextAction.SIGN_AGAIN,
    Code.PROOF_REPLAYED: NextAction.SIGN_AGAIN,
    Code.UNKNOWN_KEY: NextAction.REGISTER,
    Code.ASSURANCE_REQUIRED: NextAction.SIGN_AGAIN,
    Code.RATE_LIMITED: NextAction.WAIT,
    Code.OVERLOADED: NextAction.RETRY,
    Code.UNAVAILABLE: NextAction.RETRY,
    Code.STALE: NextAction.RETRY,
    Code.ANSWER_AWAITED: NextAction.WAIT,
    Code.PROCESSOR_FAILED: NextAction.RETRY,
    Code.INTERNAL_ERROR: NextAction.RETRY,
    Code.REGISTRATION_PENDING: NextAction.CONTACT_OPERATOR,
    Code.KEY_REVOKED: NextAction.CONTACT_OPERATOR,
    Code.NOT_PERMITTED: NextAction.CONTACT_OPERATOR,
    Code.FROZEN: NextAction.CONTACT_OPERATOR,
    Code.AUTHORITY_MISSING: NextAction.REQUEST_APPROVAL,
    Code.AUTHORITY_EXPIRED: NextAction.REQUEST_APPROVAL,
    Code.PER_CALL_LIMIT_EXCEEDED: NextAction.REQUEST_APPROVAL,
    Code.BUDGET_EXCEEDED: NextAction.REQUEST_APPROVAL,
    Code.ALLOWANCE_EXCEEDED: NextAction.REDUCE,
    Code.VENDOR_NOT_ALLOWED: NextAction.USE_OTHER_VENDOR,
    Code.CAPABILITY_NOT_ALLOWED: NextAction.REQUEST_APPROVAL,
    Code.LISTING_UNAVAILABLE: NextAction.USE_OTHER_VENDOR,
    Code.INSUFFICIENT_FUNDS: NextAction.TOP_UP,
    Code.ACCOUNT_CLOSED: NextAction.CONTACT_PLATFORM,
    Code.QUOTE_EXPIRED: NextAction.QUOTE_AGAIN,
    Code.TERMS_CHANGED: NextAction.QUOTE_AGAIN,
    Code.AGREEMENT_ENDED: NextAction.QUOTE_AGAIN,
    Code.HOLD_EXPIRED: NextAction.NEW_KEY,
    Code.SESSION_CLOSED: NextAction.NEW_KEY,
    Code.CAPTURE_EXCEEDS_HOLD: NextAction.REDUCE,
    Code.IDEMPOTENCY_CONFLICT: NextAction.NEW_KEY,
    Code.KEY_EXPIRED: NextAction.NEW_KEY,
    Code.LOCAL_LIMIT_EXCEEDED: NextAction.CONTACT_OPERATOR,
    Code.VENDOR_FAILED: NextAction.USE_OTHER_VENDOR,
    Code.RESULT_EXPIRED: NextAction.NEW_KEY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A no, as data.

    `path` names the offending field in dotted form. `required`, `remaining` are canonical amounts
    or texts that would let a program repair the call. `reasons` holds every code that applied,
    where more than one did.
    """

    code: Code
    message: str
    path: str = ""
    required: str = ""
    remaining: str = ""
    asset: str = ""
    next_action: NextAction = NextAction.FIX_REQUEST
    retry_after_s: int = 0
    reasons: tuple[Code, ...] = ()

    @property
    def severity(self) -> Severity:
        """`fault` where the server failed, else `refused`."""
        return Severity.FAULT if self.code is Code.INTERNAL_ERROR else Severity.REFUSED

    def document(self) -> dict[str, object]:
        """The one error shape of the wire (spec/errors.md), without `request_id`."""
        shape: dict[str, object] = {
            "code": self.code.value,
            "message": self.message,
            "severity": self.severity.value,
            "retryable": self.code.retryable,
            "next_action": self.next_action.value,
            "docs": f"spec/errors.md#{self.code.value}",
        }
        for name in ("path", "required", "remaining", "asset"):
            if value := getattr(self, name):
                shape[name] = value
        if self.retry_after_s:
            shape["retry_after"] = self.retry_after_s
        if self.reasons:
            shape["reasons"] = [code.value for code in self.reasons]
        return shape

    @classmethod
    def from_document(cls, shape: Mapping[str, object]) -> "Refusal":
        """The refusal that `document` wrote; an unknown code reads as `internal_error`."""

        def text(name: str) -> str:
            value = shape.get(name, "")
            return value if isinstance(value, str) else ""

        codes = {code.value: code for code in Code}
        actions = {action.value: action for action in NextAction}
        reasons = shape.get("reasons")
        retry_after = shape.get("retry_after")
        code = codes.get(text("code"), Code.INTERNAL_ERROR)
        return cls(
            code=code,
            message=text("message") or code.says,
            path=text("path"),
            required=text("required"),
            remaining=text("remaining"),
            asset=text("asset"),
            next_action=actions.get(text("next_action"), NextAction.NONE),
            retry_after_s=retry_after if isinstance(retry_after, int) else 0,
            reasons=tuple(codes[r] for r in reasons if isinstance(r, str) and r in codes)
            if isinstance(reasons, list)
            else (),
        )


def refuse(
    code: Code,
    *,
    path: str = "",
    required: str = "",
    remaining: str = "",
    asset: str = "",
    message: str = "",
    next_action: NextAction | None = None,
    retry_after_s: int = 0,
) -> Refusal:
    """A refusal with the code's own sentence and way on, unless told otherwise."""
    return Refusal(
        code=code,
        message=message or code.says,
        path=path,
        required=required,
        remaining=remaining,
        asset=asset,
        next_action=next_action or _NEXT.get(code, NextAction.FIX_REQUEST),
        retry_after_s=retry_after_s,
    )


class FarthingError(Exception):
    """Root of the tree; never raised."""


class Refused(FarthingError):
    """A refusal on its way to the door, or one received from a server.

    Args:
        refusal: The no.
        request_id: What the server's log knows the call by.
        replayed: Whether it was given before under the same idempotency key.
    """

    def __init__(self, refusal: Refusal, request_id: str = "", *, replayed: bool = False) -> None:
        super().__init__(f"{refusal.code.value}: {refusal.message}")
        self.refusal = refusal
        self.request_id = request_id
        self.replayed = replayed

    @property
    def code(self) -> Code:
        """The refusal's code, the only thing to branch on."""
        return self.refusal.code


class Broken(FarthingError):
    """An invariant does not hold. The writer stops rather than write on."""


class Unreachable(FarthingError):
    """No answer came: whether the call happened is not known; ask `get_outcome`."""


class Unverified(FarthingError):
    """A document, receipt, pack or journal does not verify; the text says what and where."""
