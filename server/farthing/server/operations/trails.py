"""What became of a call, the signed tree head, and the proof that it only grew."""

from collections.abc import Callable, Mapping
from typing import Final, cast

from farthing.identity.callers import Caller
from farthing.protocol.checkpoints import verify_checkpoint
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.keys import PublicKey
from farthing.protocol.messages.listings import Document
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.messages.trails import (
    ConsistencyProof,
    GetConsistencyProof,
    GetOutcome,
    GetTreeHead,
    OutcomeView,
    TreeHead,
)
from farthing.protocol.records import Record
from farthing.protocol.wire import Effect, document_of
from farthing.server.market import Market
from farthing.server.operations.replies import Reply, record_at
from farthing.settlement.engine.accounts import fund_answer
from farthing.settlement.engine.agreements import agreement_answer
from farthing.settlement.engine.allowances import allowance_answer
from farthing.settlement.engine.charges import refund_answer
from farthing.settlement.engine.corrections import correction_answer
from farthing.settlement.engine.disputes import dispute_answer
from farthing.settlement.engine.grants import grant_answer
from farthing.settlement.engine.holds import capture_answer, place_answer, release_answer
from farthing.settlement.engine.listings import publication_answer
from farthing.settlement.engine.lots import lot_answer
from farthing.settlement.engine.payments import top_up_answer
from farthing.settlement.engine.payouts import payout_answer
from farthing.settlement.engine.principals import (
    freeze_answer,
    key_answer,
    registration_answer,
)
from farthing.settlement.engine.questions import ConsistencyOf, OutcomeOf, TreeHeadNow
from farthing.settlement.engine.reversals import withdrawal_answer
from farthing.settlement.engine.sessions import session_answer
from farthing.settlement.engine.state import who_of
from farthing.settlement.engine.treasury import close_answer, grace_answer, partner_answer
from farthing.settlement.engine.usage import report_answer

__all__ = ["get_consistency_proof", "get_outcome", "get_tree_head"]

# The answer of every write is a function of its record; here is which.
_ANSWERS: Final[Mapping[str, Callable[[Record], object]]] = {
    "accept_terms": agreement_answer,
    "add_key": key_answer,
    "approve_allowance": allowance_answer,
    "approve_registration": registration_answer,
    "call_service": place_answer,
    "cancel_payout": payout_answer,
    "capture_hold": capture_answer,
    "close_account": close_answer,
    "close_session": session_answer,
    "confirm_payout": payout_answer,
    "confirm_top_up": top_up_answer,
    "correct_usage": correction_answer,
    "create_top_up": top_up_answer,
    "enrol_organisation": registration_answer,
    "fail_payout": payout_answer,
    "fail_top_up": top_up_answer,
    "freeze": freeze_answer,
    "fund_account": fund_answer,
    "grant_credit": lot_answer,
    "initiate_dispute": dispute_answer,
    "open_session": session_answer,
    "place_hold": place_answer,
    "propose_allowance": allowance_answer,
    "publish_listing": publication_answer,
    "refund_charge": refund_answer,
    "register_agent": registration_answer,
    "release_hold": release_answer,
    "report_usage": report_answer,
    "request_payout": payout_answer,
    "reverse_payout": payout_answer,
    "reverse_top_up": top_up_answer,
    "revoke_authority": grant_answer,
    "revoke_key": key_answer,
    "rotate_key": key_answer,
    "send_payout": payout_answer,
    "set_authority": grant_answer,
    "set_grace": grace_answer,
    "set_partner": partner_answer,
    "submit_evidence": dispute_answer,
    "terminate_agreement": agreement_answer,
    "top_up_session": session_answer,
    "unfreeze": freeze_answer,
    "withdraw_credit": lot_answer,
    "withdraw_funds": withdrawal_answer,
    "withdraw_listing": publication_answer,
}
# A write that has none is found at the start, and not by who has lost its reply.
assert _ANSWERS.keys() == {
    name for name, operation in OPERATIONS.items() if operation.effect is not Effect.READS
}


async def get_outcome(market: Market, caller: Caller, ask: GetOutcome) -> Reply:
    """What became of a call of the caller's whose reply was lost."""
    scope = who_of(ask.operation, caller.principal_id, caller.key_thumbprint)
    seq = await market.ask(OutcomeOf(scope=scope, operation=ask.operation, key=ask.key))
    if seq is None:
        return Reply(answer=OutcomeView(outcome="unknown"))
    record = await record_at(market, seq)
    if record.refused is not None:
        refusal = cast("Document", record.refused)
        return Reply(answer=OutcomeView(outcome="refused", seq=seq, refusal=refusal))
    answer = document_of(_ANSWERS[record.operation](record))
    return Reply(answer=OutcomeView(outcome="done", seq=seq, answer=cast("Document", answer)))


async def get_tree_head(market: Market, caller: Caller, ask: GetTreeHead) -> Reply:
    """The newest signed head of the journal's tree."""
    del caller, ask
    note = await market.ask(TreeHeadNow())
    head = verify_checkpoint(note, market.origin, PublicKey.from_jwk(market.journal_jwk))
    return Reply(
        answer=TreeHead(origin=head.origin, size=head.size, root_sha256=head.root.hex(), note=note)
    )


async def get_consistency_proof(market: Market, caller: Caller, ask: GetConsistencyProof) -> Reply:
    """That the tree at one size only adds to the tree at a smaller one."""
    del caller
    question = ConsistencyOf(first=ask.first_size, second=ask.second_size)
    proven = await market.ask(question)
    if proven is None:
        larger = "second_size" if ask.second_size else "first_size"
        raise Refused(refuse(Code.NOT_FOUND, path=larger))
    return Reply(
        answer=ConsistencyProof(
            first_size=proven.first,
            second_size=proven.second,
            proof=tuple(node.hex() for node in proven.path),
            tree_head=proven.note,
        )
    )
