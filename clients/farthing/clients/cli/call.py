"""One paid call from a terminal, made by the platform.

Boundary: one ask, waited for to its end; what came is shown as the vendor's words.
"""

from typing import Annotated

import typer
from rich.console import Console

from farthing.clients.cli.arguments import (
    AgreementArgument,
    WorkloadOption,
    object_of,
    stated_workload_of,
)
from farthing.clients.cli.render import UNTRUSTED, amount, as_json, heading, notice
from farthing.clients.cli.session import IdempotencyOption, Session, command
from farthing.protocol.messages.services import CALL_SERVICE, ServiceResult

__all__ = ["commands"]

_LINES_MAX = 100

commands = typer.Typer()


@command(
    commands,
    "call-service",
    example="""farthing call-service agr_… '{"pdf": "JVBERi0="}' --workload page=30""",
    panel="Trade",
)
def call_service(
    session: Session,
    agreement: AgreementArgument,
    arguments: Annotated[
        str,
        typer.Argument(
            metavar="ARGUMENTS",
            help="The tool's arguments as a JSON object, @FILE, or - for standard input.",
            show_default=False,
        ),
    ],
    *,
    workload: WorkloadOption = None,
    deliver_within_s: Annotated[
        int, typer.Option(min=0, help="How long the vendor has; 0 is as long as the terms say.")
    ] = 0,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Have the platform make one paid call of an agreement's tool (agent), and wait for its end.

    The same idempotency key again is the same call: its result is kept for a day.
    """
    from farthing.clients.buyers import Buyer  # noqa: PLC0415 - loads the transport

    quantities = stated_workload_of(workload)
    given = object_of(arguments, "ARGUMENTS")
    keys, key = session.pinned_keys(), idempotency_key or session.new_key()
    with session.naming(CALL_SERVICE, key):
        reply = session.run(
            lambda connection: Buyer(connection, platform_keys=keys).have_called(
                agreement, given, quantities, deliver_within_s=deliver_within_s, key=key
            )
        )
    session.show(reply.answer, _result)


def _result(console: Console, answer: ServiceResult) -> None:
    charge = answer.charge
    paid = f"{amount(charge.amount)}, released {amount(charge.released)}"
    heading(console, f"{charge.charge_id}: {paid}")
    notice(console, f"result {answer.result_sha256}, kept until {answer.kept_until}")
    heading(console, f"The result ({UNTRUSTED}):")
    lines = as_json(answer.untrusted_result).splitlines()
    notice(console, "\n".join(lines[:_LINES_MAX]), "italic dim")
    if len(lines) > _LINES_MAX:
        notice(console, f"{len(lines) - _LINES_MAX} more lines: --json shows them all.")
