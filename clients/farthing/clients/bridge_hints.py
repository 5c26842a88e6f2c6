"""What a person does about a refusal or next, as a command where there is one.

Boundary: words for those who stand beside the model. Source: spec/bridge.md.
"""

from pathlib import Path
from typing import Final

from farthing.clients.home import Profile
from farthing.protocol.errors import Code, NextAction, Refusal, refuse

__all__ = ["hint", "key_hint", "next_step", "not_holding"]

_AT_THE_CAP: Final = {
    NextAction.REDUCE: "The session's cap is reached, and it was opened to end there: "
    "close_session, and for more open_session anew.",
    NextAction.TOP_UP: "The session's cap is reached: top_up_session sets more aside.",
    NextAction.REQUEST_APPROVAL: "The session's cap is reached: ask a person before more is set "
    "aside with top_up_session.",
}


def hint(refusal: Refusal, agent_id: str, ceiling: Path) -> str:
    """The way on from a refusal; empty where the refusal says all.

    Args:
        refusal: What was said.
        agent_id: Who was refused; empty before it is registered.
        ceiling: The file of the local ceiling.
    """
    match refusal.code:
        case Code.UNKNOWN_KEY | Code.UNAUTHENTICATED if not agent_id:
            return "Call register with your operator's id (org_…) and a name for this agent."
        case Code.REGISTRATION_PENDING:
            return f"Your operator runs: farthing approve {agent_id}"
        case Code.AUTHORITY_MISSING | Code.AUTHORITY_EXPIRED:
            return (
                f"Your operator runs: farthing grants set {agent_id} "
                "--per-call AMOUNT --per-day AMOUNT"
            )
        case Code.PER_CALL_LIMIT_EXCEEDED | Code.BUDGET_EXCEEDED:
            return (
                f"Your operator can raise it: farthing grants set {agent_id} "
                "--per-call AMOUNT --per-day AMOUNT"
            )
        case Code.LOCAL_LIMIT_EXCEEDED if refusal.path == "amount":
            return f"A person on this machine can raise it: {ceiling}"
        case Code.LOCAL_LIMIT_EXCEEDED if refusal.path == "cap":
            return _AT_THE_CAP.get(refusal.next_action, "")
        case Code.INSUFFICIENT_FUNDS:
            return (
                "Your operator's balance needs topping up: "
                "farthing treasury create-top-up AMOUNT ASSET"
            )
        case _:
            return ""


def key_hint(key: str, refusal: Refusal, *, is_final: bool, is_helped: bool) -> str:
    """Whether an idempotency key goes on with the call; empty where the same call fails again.

    Args:
        key: The key.
        refusal: What was said.
        is_final: Whether the key is spent.
        is_helped: Whether the same call may do after it, in spite of what is said.
    """
    if is_final:
        return f"This is final for idempotency_key={key}; to try anew, leave the key out."
    is_signed_anew = refusal.next_action is NextAction.SIGN_AGAIN
    if is_helped or is_signed_anew or refusal.code.retryable:
        return f"To go on with this very call, call again with idempotency_key={key}"
    return ""


def not_holding(error: Exception) -> Refusal:
    """An answer that cannot be believed: no request mends it, a person has to look."""
    next_action = NextAction.CONTACT_OPERATOR
    return refuse(Code.SIGNATURE_INVALID, message=f"{error}.", next_action=next_action)


def next_step(profile: Profile, status: str) -> str:
    """What comes next on the way to a first purchase."""
    match status:
        case "active":
            return "Ready. What may be spent: get_authority."
        case "pending":
            return f"A person at your operator runs: farthing approve {profile.principal_id}"
        case _:
            return "Call register with your operator's id (org_…) and a name for this agent."
