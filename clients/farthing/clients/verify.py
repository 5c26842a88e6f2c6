"""Verifying an evidence pack or a bundle offline: the file in, findings for a person out.

Boundary: reads one file and writes none; what holds is decided by `farthing.protocol.evidence`, and
of the bundle of a whole journal by `farthing.protocol.bundles`.
Without a pinned thumbprint it can only say that a pack agrees with itself, and the findings say so
in their first line.
"""

from collections.abc import Iterator
from pathlib import Path

from farthing.protocol.bundles import BUNDLE_MARK, BundleFindings, verify_bundle
from farthing.protocol.evidence import Findings, verify
from farthing.protocol.packs import PACK_BYTES_MAX

__all__ = ["report", "verify_file"]


def verify_file(path: Path, trust: frozenset[str] | None = None) -> Findings:
    """Verify the pack or the bundle in a file.

    Args:
        path: the file.
        trust: thumbprints of the platform's journal key, learnt elsewhere; None where nothing is
            pinned. An empty set trusts nobody, so that a mistyped option cannot pass for a pin.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(BUNDLE_MARK)) == BUNDLE_MARK:
            file.seek(0)
            return _of_bundle(verify_bundle(file, trust))
        file.seek(0)
        # One byte more than a pack may have: a larger file is refused without being read whole.
        data = file.read(PACK_BYTES_MAX + 1)
    return verify(data, trust)


def report(findings: Findings) -> str:
    """The findings in lines, the verdict first. No line can hold anything but visible text."""
    return "\n".join(map(_visible, _lines(findings)))


def _lines(findings: Findings) -> Iterator[str]:
    if not findings.verified:
        yield f"REJECTED: {findings.bad}"
        return
    what = f"charge {findings.charge_id}" if findings.charge_id else "a whole journal"
    yield f"VERIFIED ({findings.trust.value}): {what}"
    yield f"journal key: {findings.journal_key}"
    for heading, sayings in (
        ("proved", findings.proved),
        ("not provable from this file", findings.not_provable),
        ("bytes not covered", findings.not_covered or ("none",)),
    ):
        yield f"{heading}:"
        yield from (f"  - {saying}" for saying in sayings)


def _of_bundle(findings: BundleFindings) -> Findings:
    return Findings(
        journal_key=findings.journal_key,
        trust=findings.trust,
        proved=findings.proved,
        not_provable=findings.not_provable,
        bad=findings.bad,
    )


def _visible(line: str) -> str:
    # Names out of a hostile pack must not steer the terminal they are shown on.
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
