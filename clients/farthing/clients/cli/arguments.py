"""What a person types, read into what the wire carries: amounts, times, workloads, documents.

Boundary: a mistake is a usage error, found before anything is sent.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from farthing.protocol.base64url import is_sha256
from farthing.protocol.canonical import InvalidJson, Json, parse_json
from farthing.protocol.money import InvalidAmount, parse_units
from farthing.protocol.wire import Money, Usage, quantities_of

__all__ = [
    "TIME_FORM",
    "AgreementArgument",
    "AgreementOption",
    "AmountArgument",
    "AssetArgument",
    "AssetOption",
    "BookedAsOption",
    "ChargeArgument",
    "CursorOption",
    "JsonFileArgument",
    "LimitOption",
    "ListingArgument",
    "WorkloadOption",
    "calls_of",
    "money_of",
    "object_of",
    "stated_workload_of",
    "thumbprint_of",
    "time_of",
    "workload_of",
]

TIME_FORM = "as 2026-11-21 or 2026-11-21T09:30:00Z"

_FILE_BYTES_MAX = 1024 * 1024
_QUANTITY = re.compile(r"[0-9]{1,19}")
_CALL = re.compile(r"([1-9][0-9]{0,15}):([a-z0-9][a-z0-9._-]{0,63})=([1-9][0-9]{0,15})")


def _said(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("it ties the booking to what is booked outside: say what it is")
    return text


ChargeArgument = Annotated[
    str, typer.Argument(metavar="CHARGE", help="The charge's id, chg_…", show_default=False)
]
AmountArgument = Annotated[
    str,
    typer.Argument(metavar="AMOUNT", help="The amount, as decimal text: 12.5", show_default=False),
]
AssetArgument = Annotated[
    str, typer.Argument(metavar="ASSET", help="USD, EUR, JPY, XTS or CRD.", show_default=False)
]
AgreementArgument = Annotated[
    str, typer.Argument(metavar="AGREEMENT", help="The agreement's id, agr_…", show_default=False)
]
ListingArgument = Annotated[
    str, typer.Argument(metavar="LISTING", help="The listing's id, lst_…", show_default=False)
]
JsonFileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="An offer as JSON: listing, rate_card and terms.",
        exists=True,
        dir_okay=False,
        readable=True,
        show_default=False,
    ),
]
BookedAsOption = Annotated[
    str,
    typer.Option(
        "--reference",
        parser=_said,
        metavar="TEXT",
        help="What it is booked under outside, such as the wire's number.",
    ),
]
AssetOption = Annotated[
    str, typer.Option(metavar="ASSET", help="The asset of the amounts: USD, EUR, JPY, XTS or CRD.")
]
AgreementOption = Annotated[
    str,
    typer.Option(metavar="AGREEMENT", help="Of one agreement alone, agr_…", show_default=False),
]
LimitOption = Annotated[int, typer.Option(min=1, max=100, help="How many at most.")]
CursorOption = Annotated[
    str,
    typer.Option(metavar="CURSOR", help="Go on where the last page ended.", show_default=False),
]
WorkloadOption = Annotated[
    list[str] | None,
    typer.Option(
        "--workload",
        "-w",
        metavar="METER=QUANTITY",
        help="How much of one meter, in its smallest unit; repeat for more meters.",
        show_default=False,
    ),
]


def money_of(amount: str, asset: str, name: str = "amount") -> Money:
    """An amount as typed; `5.00` is taken for the canonical `5`.

    Raises:
        typer.BadParameter: It is no amount of the asset.
    """
    text = amount.rstrip("0").removesuffix(".") if "." in amount else amount
    try:
        parse_units(text, asset)
    except InvalidAmount as error:
        text = f"{amount} {asset} is no amount. {error}"
        raise typer.BadParameter(text, param_hint=name) from None
    return Money(amount=text, asset=asset)


def time_of(text: str) -> str:
    """A time as typed, in the form of the wire; a day is its first instant in UTC.

    Raises:
        typer.BadParameter: It is no time, or says no zone.
    """
    if not text:
        return ""
    try:
        at = datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00Z")
        if at.tzinfo is None:
            raise typer.BadParameter(f"{text}: say the zone, as in 2026-11-21T09:30:00Z")
        at = at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text} is no time: write it {TIME_FORM}") from None
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def workload_of(pairs: list[str] | None, name: str = "--workload") -> tuple[Usage, ...]:
    """A workload from `meter=quantity` texts; `name` is the option's.

    Raises:
        typer.BadParameter: One is not of that form.
    """
    usages = []
    for pair in pairs or ():
        meter, _, quantity = pair.partition("=")
        if not meter or not _QUANTITY.fullmatch(quantity):
            raise typer.BadParameter(
                f"{pair}: write the meter, =, and a whole number, as in page=30",
                param_hint=name,
            )
        usages.append(Usage(meter=meter, quantity=str(int(quantity))))
    return tuple(usages)


def stated_workload_of(pairs: list[str] | None) -> dict[str, int]:
    """A workload that cannot be left out, by meter; raises as `workload_of`."""
    usages = workload_of(pairs)
    if not usages:
        raise typer.BadParameter(
            "say how much of each meter, as in --workload page=30", param_hint="--workload"
        )
    return quantities_of(usages)


def calls_of(texts: list[str]) -> dict[int, dict[str, int]]:
    """Quantities by call and meter, from `call:meter=quantity` texts.

    Raises:
        typer.BadParameter: One is not of that form.
    """
    calls: dict[int, dict[str, int]] = {}
    for text in texts:
        found = _CALL.fullmatch(text)
        if found is None:
            raise typer.BadParameter(
                f"{text}: write the call, :, the meter, =, and a whole number, as in 17:page=2",
                param_hint="CALL",
            )
        call, meter, quantity = found.groups()
        calls.setdefault(int(call), {})[meter] = int(quantity)
    return calls


def object_of(text: str, name: str) -> dict[str, Json]:
    """A JSON object as typed, from `@FILE`, or from standard input for `-`.

    Raises:
        typer.BadParameter: It is no JSON object without fractions and null.
    """
    try:
        value = parse_json(_bytes_of(text))
    except InvalidJson as error:
        raise typer.BadParameter(
            f"not JSON as the protocol reads it: {error}", param_hint=name
        ) from None
    except OSError as error:
        raise typer.BadParameter(f"{error.filename}: {error.strerror}", param_hint=name) from None
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object", param_hint=name)
    return value


def thumbprint_of(text: str) -> str:
    """A thumbprint as typed; nothing stays nothing.

    Raises:
        typer.BadParameter: It is no SHA-256 in base64url.
    """
    if text and not is_sha256(text):
        raise typer.BadParameter(f"{text} is not the thumbprint of a key")
    return text


def _bytes_of(text: str) -> bytes:
    if text == "-":
        return typer.get_binary_stream("stdin").read(_FILE_BYTES_MAX + 1)
    if text.startswith("@"):
        with Path(text[1:]).open("rb") as file:
            return file.read(_FILE_BYTES_MAX + 1)
    return text.encode()
