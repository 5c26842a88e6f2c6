"""A platform that lies: its journal written anew with a lie in it, chained and sealed again."""

from typing import Any

from farthing.protocol.canonical import canonical_bytes, document_sha256
from farthing.protocol.evidence import gather, verify
from farthing.protocol.keys import PrivateKey
from farthing.protocol.signatures import Typ, sign_detached
from tests.entries import chained, document_in
from tests.protocol.evidence_market import JOURNAL_KEY, Sealed, Told

__all__ = ["Forger", "place"]


class Forger:
    """A journal that is written anew: chained and sealed again after every change."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.documents: list[Any] = [document_in(each) for each in told.trade.room.journal]

    def record(self, operation: str) -> Any:
        return [each for each in self.documents if each["operation"] == operation][-1]

    def lie(self, operation: str, member: str, value: object) -> None:
        *path, last = member.split(".")
        inner = self.record(operation)
        for name in path:
            inner = inner[int(name)] if isinstance(inner, list) else inner[name]
        inner[last] = value

    def sign(self, operation: str, fact: str, key: PrivateKey, typ: Typ) -> str:
        """Sign a fact anew, and give its new digest."""
        facts = self.record(operation)["facts"]
        name = "signature" if fact == "listing" else f"{fact}_signature"
        facts[name] = sign_detached(key, typ, canonical_bytes(facts[fact]))
        return document_sha256(facts[fact])

    def journal(self) -> list[bytes]:
        return chained(self.documents)

    def verdict(self, seqs: set[int] | None = None) -> str:
        sealed = Sealed(self.journal())
        evidence = sealed.evidence(self.told.charge_id, seqs or self.told.seqs())
        return verify(gather(evidence), frozenset({JOURNAL_KEY.thumbprint})).bad


def place(told: Told, operation: str) -> str:
    """How a verdict names an operation's last record."""
    return f"record {Forger(told).record(operation)['seq']} ({operation}): "
