"""The frozen inputs of a dispute, and the ruling that a rule makes of them.

Boundary: values and their documents. A case holds all that a ruling depends on, so that anybody
can run the rule again on it. Source: spec/disputes.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from farthing.protocol.canonical import Json

__all__ = ["Case", "Evidence", "Outcome", "Reason", "Ruling", "Step"]


class Reason(StrEnum):
    """Why a charge is disputed. What is not in this list is not decided by rule."""

    NOT_DELIVERED = "not_delivered"
    CALCULATION_ERROR = "calculation_error"


class Outcome(StrEnum):
    """What a ruling comes to."""

    CREDIT = "credit"
    REJECT = "reject"
    NEEDS_EVIDENCE = "needs_evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the platform found of the body a vendor produced: its digest, and whether it fits."""

    body_sha256: str
    schema_valid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that a ruling depends on.

    `charged_units` is what stands after refunds. `evidence_overdue` is set once the vendor's time
    to answer has passed with no answer.
    """

    charge_id: str
    asset: str
    charged_units: int
    card_sha256: str
    posted_card_sha256: str
    position: Mapping[str, int]
    usage: Mapping[str, int]
    result_sha256: str
    evidence: Evidence | None = None
    evidence_overdue: bool = False

    def document(self) -> dict[str, Json]:
        """The case as it stands in a record."""
        document: dict[str, Json] = {
            "asset": self.asset,
            "card_sha256": self.card_sha256,
            "charge_id": self.charge_id,
            "charged_units": str(self.charged_units),
            "evidence_overdue": self.evidence_overdue,
            "position": {meter: str(quantity) for meter, quantity in self.position.items()},
            "posted_card_sha256": self.posted_card_sha256,
            "result_sha256": self.result_sha256,
            "usage": {meter: str(quantity) for meter, quantity in self.usage.items()},
        }
        if self.evidence is not None:
            document["evidence"] = {
                "body_sha256": self.evidence.body_sha256,
                "schema_valid": self.evidence.schema_valid,
            }
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> "Case":
        """The case that `document` wrote."""
        evidence = cast("dict[str, Json] | None", document.get("evidence"))
        return cls(
            charge_id=str(document["charge_id"]),
            asset=str(document["asset"]),
            charged_units=int(str(document["charged_units"])),
            card_sha256=str(document["card_sha256"]),
            posted_card_sha256=str(document["posted_card_sha256"]),
            position=_quantities(document["position"]),
            usage=_quantities(document["usage"]),
            result_sha256=str(document["result_sha256"]),
            evidence=None
            if evidence is None
            else Evidence(
                body_sha256=str(evidence["body_sha256"]),
                schema_valid=bool(evidence["schema_valid"]),
            ),
            evidence_overdue=bool(document["evidence_overdue"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One comparison a rule made, and whether it held."""

    says: str
    left: str
    right: str
    holds: bool

    def document(self) -> dict[str, Json]:
        """The step as it stands in a record."""
        return {"holds": self.holds, "left": self.left, "right": self.right, "says": self.says}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a rule decided, and every comparison that led there."""

    outcome: Outcome
    credit_units: int
    rule_id: str
    trace: tuple[Step, ...]

    def document(self) -> dict[str, Json]:
        """The ruling as it stands in a record."""
        return {
            "credit_units": str(self.credit_units),
            "outcome": self.outcome.value,
            "rule_id": self.rule_id,
            "trace": [step.document() for step in self.trace],
        }


def _quantities(value: Json) -> dict[str, int]:
    return {meter: int(str(quantity)) for meter, quantity in cast("dict[str, Json]", value).items()}
