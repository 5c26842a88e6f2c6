"""Spend sessions of a whole journal: set aside, billed from the signed batches, given back.

Boundary: who may spend is `budgets`, what becomes of a charge later `spending`.
Source: spec/sessions.md, spec/metering.md, spec/audit.md.
"""

from typing import Final

__all__ = ["SESSION_OPERATIONS"]

SESSION_OPERATIONS: Final = frozenset(
    {"open_session", "top_up_session", "report_usage", "close_session", "expire_session"}
)
