"""What a person types, read into what the wire carries: amounts, workloads, documents.

Boundary: a mistake is a usage error, found before anything is sent.
"""

from pathlib import Path
from typing import Annotated

import typer

from farthing.protocol import base64url
from farthing.protocol.canonical import InvalidJson, Json, parse_json
from farthing.protocol.money import InvalidAmount, parse_units
from farthing.protocol.wire import Money, Usage

__all__ = [
    "AssetOption",
    "ChargeArgument",
    "JsonFileArgument",
    "ListingArgument",
    "WorkloadOption",
    "money_of",
    "object_of",
    "thumbprint_of",
    "workload_of",
]

_FILE_BYTES_MAX = 1024 * 1024
_THUMBPRINT_BYTES = 32

ChargeArgument = Annotated[
    str, typer.Argument(metavar="CHARGE", help="The charge's id, chg_…", show_default=False)
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
AssetOption = Annotated[
    str, typer.Option(metavar="ASSET", help="The asset of the amounts: USD, EUR, JPY, XTS or CRD.")
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
        raise typer.BadParameter(f"{amount} {asset}: {error}", param_hint=name) from None
    return Money(amount=text, asset=asset)


def workload_of(pairs: list[str] | None) -> tuple[Usage, ...]:
    """A workload from `meter=quantity` texts.

    Raises:
        typer.BadParameter: One is not of that form.
    """
    usages = []
    for pair in pairs or ():
        meter, _, quantity = pair.partition("=")
        if not meter or not quantity.isascii() or not quantity.isdigit():
            raise typer.BadParameter(
                f"{pair}: write the meter, =, and a whole number, as in page=30",
                param_hint="--workload",
            )
        usages.append(Usage(meter=meter, quantity=str(int(quantity))))
    return tuple(usages)


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
    try:
        fits = len(base64url.decode(text)) in {0, _THUMBPRINT_BYTES}
    except base64url.InvalidBase64:
        fits = False
    if not fits:
        raise typer.BadParameter(f"{text} is not the thumbprint of a key")
    return text


def _bytes_of(text: str) -> bytes:
    if text == "-":
        return typer.get_binary_stream("stdin").read(_FILE_BYTES_MAX + 1)
    if text.startswith("@"):
        with Path(text[1:]).open("rb") as file:
            return file.read(_FILE_BYTES_MAX + 1)
    return text.encode()
