"""What operators and the platform's staff do: enrol, approve, fund, limit, stop.

Boundary: one call of the platform a command; keys themselves are `keys`' affair.
"""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from farthing.clients.cli.arguments import (
    TIME_FORM,
    AmountArgument,
    AssetArgument,
    AssetOption,
    BookedAsOption,
    CursorOption,
    LimitOption,
    money_of,
    time_of,
)
from farthing.clients.cli.booking import book
from farthing.clients.cli.render import facts, heading, table
from farthing.clients.cli.session import Exit, IdempotencyOption, Session, TrustOption, command
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.accounts import (
    FUND_ACCOUNT,
    ROWS_MAX,
    FundAccount,
    TrialBalance,
    TrialRow,
    TrialTotal,
)
from farthing.protocol.messages.agents import (
    APPROVE_REGISTRATION,
    FREEZE,
    GET_REGISTRATION,
    LIST_AGENTS,
    UNFREEZE,
    Agents,
    ApproveRegistration,
    Freeze,
    GetRegistration,
    ListAgents,
    Registration,
    Unfreeze,
)
from farthing.protocol.messages.authority import (
    GET_AUTHORITY,
    REVOKE_AUTHORITY,
    SET_AUTHORITY,
    Authority,
    GetAuthority,
    RevokeAuthority,
    SetAuthority,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from farthing.clients.home import Home
    from farthing.clients.operators import Newcomer

__all__ = ["commands"]

PANEL = "Operate"

commands = typer.Typer()
agents = typer.Typer(no_args_is_help=True, help="Register an operator's agents and list them.")
grants = typer.Typer(no_args_is_help=True, help="Set what an agent may spend (operator).")
commands.add_typer(agents, name="agents", rich_help_panel=PANEL)
commands.add_typer(grants, name="grants", rich_help_panel=PANEL)

AgentArgument = Annotated[
    str, typer.Argument(metavar="AGENT", help="The agent's id, agt_…", show_default=False)
]
AgentNameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The agent's name.", show_default=False)
]
PrincipalArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="An organisation (org_…) or an agent (agt_…).", show_default=False
    ),
]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the record.")]


@command(commands, "enrol", example='farthing enrol --kind operator --name "Acme Ltd"', panel=PANEL)
def enrol(
    session: Session,
    *,
    kind: Annotated[
        Literal["operator", "vendor"],
        typer.Option(help="Whether it buys, through its agents, or sells."),
    ],
    name: Annotated[str, typer.Option(help="Its name, at most 80 characters.")],
    trust: TrustOption = "",
) -> None:
    """Enrol an organisation with the home's key, made if there is none; the admin approves it."""
    if session.key_path is not None:
        session.misuse("An organisation enrols with the key of its own home: name it with --home.")
    profile = session.home.profile()
    if profile is not None and profile.role not in {"", kind}:
        session.misuse(
            f"{session.home.path} is the home of {profile.principal_id}, role {profile.role}: "
            "name another directory with --home or FARTHING_HOME."
        )
    registration = _registered(
        session, session.home, trust, lambda newcomer: newcomer.enrol(kind, name)
    )
    session.show(registration)
    if registration.status == "pending":
        session.note(
            "The admin approves it: farthing --key farthing-data/keys/admin.jwk approve "
            f"{registration.principal_id}"
        )


@command(commands, "whoami", example="farthing whoami", panel=PANEL)
def whoami(session: Session) -> None:
    """Show who the key is to the platform, and whether it may act yet."""
    session.show(session.call(GET_REGISTRATION, GetRegistration()))


@command(
    commands,
    "approve",
    example="farthing approve org_… --key farthing-data/keys/admin.jwk",
    panel=PANEL,
)
def approve(
    session: Session, principal: PrincipalArgument, *, idempotency_key: IdempotencyOption = ""
) -> None:
    """Approve a pending organisation (admin) or a pending agent (its operator)."""
    ask = ApproveRegistration(
        principal_id=principal, idempotency_key=idempotency_key or session.new_key()
    )
    session.show(session.call(APPROVE_REGISTRATION, ask))


@command(
    commands,
    "fund",
    example="farthing fund org_… 5 USD --reference wire-42 --key farthing-data/keys/treasurer.jwk",
    panel=PANEL,
)
def fund(
    session: Session,
    organisation: Annotated[
        str, typer.Argument(metavar="ORG", help="The operator's id, org_…", show_default=False)
    ],
    amount: AmountArgument,
    asset: AssetArgument,
    *,
    reference: BookedAsOption,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Credit an operator's prepaid account from outside (treasurer)."""
    ask = FundAccount(
        organisation_id=organisation,
        amount=money_of(amount, asset),
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    book(session, FUND_ACCOUNT, ask, reference=reference)


@command(
    commands,
    "trial-balance",
    example="farthing trial-balance --key farthing-data/keys/treasurer.jwk",
    panel=PANEL,
)
def trial_balance(
    session: Session,
    *,
    at_seq: Annotated[
        int,
        typer.Option(min=0, help="After this record of the journal; else now.", show_default=False),
    ] = 0,
) -> None:
    """List every account's gross counters (treasurer, admin); exit 1 if they do not balance."""
    from farthing.clients.trial_balance import whole_trial_balance  # noqa: PLC0415 - loads the transport

    answer = session.run(lambda connection: whole_trial_balance(connection, at_seq))
    session.show(answer, _trial_balance)
    if not answer.balanced:
        raise typer.Exit(Exit.REFUSED)


@command(commands, "freeze", example="farthing freeze agt_… --reason 'odd purchases'", panel=PANEL)
def freeze(
    session: Session,
    principal: PrincipalArgument,
    *,
    reason: ReasonOption = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Stop an agent or organisation from buying (operator, admin), from its next call on."""
    ask = Freeze(
        principal_id=principal, reason=reason, idempotency_key=idempotency_key or session.new_key()
    )
    session.show(session.call(FREEZE, ask))


@command(commands, "unfreeze", example="farthing unfreeze agt_… --reason explained", panel=PANEL)
def unfreeze(
    session: Session,
    principal: PrincipalArgument,
    *,
    reason: ReasonOption = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Let a frozen agent or organisation act again (whoever froze it, or the admin)."""
    ask = Unfreeze(
        principal_id=principal, reason=reason, idempotency_key=idempotency_key or session.new_key()
    )
    session.show(session.call(UNFREEZE, ask))


@command(agents, "list", example="farthing agents list")
def list_agents(session: Session, *, cursor: CursorOption = "", limit: LimitOption = 50) -> None:
    """List the operator's agents, oldest first, and after them who asks to be one."""
    ask = ListAgents(cursor=cursor, limit=limit)
    session.show_page(session.call(LIST_AGENTS, ask), _agents)


@command(agents, "register", example='farthing agents register "Reader 1"')
def register(
    session: Session,
    name: AgentNameArgument,
    *,
    operator: Annotated[
        str,
        typer.Option(
            metavar="ORG", help="Its operator, org_…; else the home's own.", show_default=False
        ),
    ] = "",
    agent_home: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the agent's key and profile lie; else agents/NAME in the home.",
            show_default=False,
        ),
    ] = None,
    trust: TrustOption = "",
) -> None:
    """Register an agent with a key of its own, made if there is none; its operator approves it.

    The agent then acts with its own directory: farthing --home DIR, or FARTHING_HOME=DIR.
    """
    profile = session.profile()
    organisation = operator or (profile.organisation_id if profile else "")
    if not organisation:
        session.misuse("Whose agent is it? Name its operator with --operator.")
    home = _agent_home(session, name, agent_home)
    registration = _registered(
        session, home, trust, lambda newcomer: newcomer.register(organisation, name)
    )
    session.show(registration)
    session.note(f"The agent's directory: {home.path}")
    if registration.status == "pending":
        session.note(f"Its operator approves it: farthing approve {registration.principal_id}")


@command(agents, "key", example='farthing agents key "Reader 1"', offline=True)
def agent_key(
    session: Session,
    name: AgentNameArgument,
    *,
    agent_home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="As in agents register.", show_default=False),
    ] = None,
) -> None:
    """Show the key of an agent of this home, made if there is none; registers nothing."""
    home = _agent_home(session, name, agent_home)
    key = home.key()
    session.show_facts({"thumbprint": key.thumbprint, "key_file": str(home.key_path)})


@command(grants, "set", example="farthing grants set agt_… --per-call 0.05 --per-day 1")
def set_grant(
    session: Session,
    agent: AgentArgument,
    *,
    per_call: Annotated[str, typer.Option(metavar="AMOUNT", help="The most for one call.")],
    per_day: Annotated[str, typer.Option(metavar="AMOUNT", help="The most for one UTC day.")],
    asset: AssetOption = "USD",
    allow_vendor: Annotated[
        list[str] | None, typer.Option(metavar="ORG", help="Only this vendor; repeat for more.")
    ] = None,
    deny_vendor: Annotated[
        list[str] | None, typer.Option(metavar="ORG", help="Never this vendor; repeat for more.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Only this capability and below; repeat for more."),
    ] = None,
    deny: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Never this capability and below; repeat for more."),
    ] = None,
    expires: Annotated[
        str,
        typer.Option(
            parser=time_of,
            metavar="TIME",
            help=f"When it ends, {TIME_FORM}; else it does not.",
            show_default=False,
        ),
    ] = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Set what an agent may spend of one asset; replaces its grant for that asset."""
    ask = SetAuthority(
        agent_id=agent,
        per_call_max=money_of(per_call, asset, "--per-call"),
        per_day_max=money_of(per_day, asset, "--per-day"),
        vendors_allow=tuple(allow_vendor or ()),
        vendors_deny=tuple(deny_vendor or ()),
        capabilities_allow=tuple(allow or ()),
        capabilities_deny=tuple(deny or ()),
        expires_at=expires,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(SET_AUTHORITY, ask))


@command(grants, "show", example="farthing grants show agt_…")
def show_grants(
    session: Session,
    agent: Annotated[
        str,
        typer.Argument(
            metavar="AGENT", help="The agent's id; else the caller.", show_default=False
        ),
    ] = "",
) -> None:
    """Show what an agent may spend and what remains of it today (agent, operator)."""
    session.show(session.call(GET_AUTHORITY, GetAuthority(agent_id=agent or None)), _authority)


@command(grants, "revoke", example="farthing grants revoke agt_… USD")
def revoke_grant(
    session: Session,
    agent: AgentArgument,
    asset: AssetArgument,
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Take an agent's grant of one asset away, from the next call on."""
    ask = RevokeAuthority(
        agent_id=agent, asset=asset, idempotency_key=idempotency_key or session.new_key()
    )
    session.show(session.call(REVOKE_AUTHORITY, ask))


def _registered(
    session: Session,
    home: "Home",
    trust: str,
    ask: "Callable[[Newcomer], Awaitable[Registration]]",
) -> Registration:
    """Register a home's key and write down who it has become; again, it is the same."""
    from farthing.clients.operators import Member, Newcomer  # noqa: PLC0415 - loads the transport
    from farthing.clients.transport import Connection  # noqa: PLC0415 - as above

    async def work() -> Registration:
        profile = await home.meet(session.platform_url(), trust)
        async with Connection(profile.url, signer=home.key()) as connection:
            await home.recognise(profile, connection)
            try:
                await ask(Newcomer(connection))
            except Refused as refused:
                if refused.code is not Code.ALREADY_REGISTERED:
                    raise
            # A registration that is done again answers as it did at first; this is how it stands.
            registration = await Member(connection).registration()
        home.save_profile(profile.of(registration))
        return registration

    return asyncio.run(work())


def _agent_home(session: Session, name: str, given: Path | None) -> "Home":
    from farthing.clients.home import Home  # noqa: PLC0415 - loads the transport

    if given is not None:
        return Home(given)
    folder = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not folder:
        session.misuse("The name makes no folder: say where with --agent-home.")
    return Home(session.home.path / "agents" / folder)


def _trial_balance(console: Console, answer: TrialBalance) -> None:
    counted: list[tuple[str, TrialRow | TrialTotal]]
    counted = [(each.account, each) for each in answer.rows]
    counted += [("all accounts", each) for each in answer.totals]
    rows = [
        (
            name,
            each.asset,
            each.debits_posted,
            each.credits_posted,
            each.debits_pending,
            each.credits_pending,
        )
        for name, each in counted
    ]
    if not answer.rows:
        heading(console, f"No accounts, as of record {answer.as_of_seq}.")
        return
    titles = (
        "account", "asset", "debits posted", "credits posted", "debits pending", "credits pending",
    )  # fmt: skip
    # A grid is laid out whole before any of it is printed: half a million rows took gigabytes.
    for first in range(0, len(rows), ROWS_MAX):
        table(console, titles, rows[first : first + ROWS_MAX])
    says = "Debits equal credits" if answer.balanced else "DEBITS DO NOT EQUAL CREDITS"
    heading(console, f"{says}, as of record {answer.as_of_seq}.")


def _authority(console: Console, answer: Authority) -> None:
    facts(console, answer)
    if not answer.agent_id.startswith("agt_"):
        heading(console, "A grant is an agent's: name one that farthing agents list shows.")
    elif not answer.grants:
        heading(console, "No grants: farthing grants set AGENT gives one.")


def _agents(console: Console, answer: Agents) -> None:
    if not answer.agents:
        heading(console, "No agents.")
        return
    rows = (
        (each.agent_id, each.name, each.status, "yes" if each.frozen else "no", each.key_thumbprint)
        for each in answer.agents
    )
    table(console, ("agent", "name", "status", "frozen", "key"), rows)
