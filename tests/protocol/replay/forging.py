"""Records as a platform that breaks a rule would write them, in a journal that is chained."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import structs

from farthing.protocol.audit import AuditFindings, verify_journal
from farthing.protocol.canonical import Json
from farthing.protocol.chain import Chain
from farthing.protocol.records import Record
from farthing.protocol.replay.rulebook import Rulebook
from tests.protocol.evidence_market import QUOTE_KEY

__all__ = ["Forge", "after", "audited", "by", "rewritten"]

Forge = Callable[[Record], Record]


def rewritten(records: Sequence[Record], seq: int, forge: Forge) -> list[bytes]:
    """The journal of a platform that wrote one record otherwise."""
    chain = Chain()
    written = []
    for record in records:
        data = chain.bytes_of(forge(record) if record.seq == seq else record)
        written.append(data)
        chain.add(data)
    return written


def audited(journal: Sequence[bytes]) -> AuditFindings:
    """What an audit by every rule finds."""
    return verify_journal(journal, follow=Rulebook([QUOTE_KEY.public]).follow)


def after(noun: str, **members: Json) -> Forge:
    """Say something else of the things of a noun that a record changes."""

    def forge(record: Record) -> Record:
        changed = tuple(
            structs.replace(each, after={**each.after, **members}) if each.noun == noun else each
            for each in record.changed
        )
        return structs.replace(record, changed=changed)

    return forge


def by(**members: Any) -> Forge:
    """Say something else of who asked."""
    return lambda record: structs.replace(record, by=structs.replace(record.by, **members))
