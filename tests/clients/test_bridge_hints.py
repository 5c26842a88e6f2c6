"""What a refusal of the bridge tells a model to do next is of use to it."""

from pathlib import Path

import pytest

from farthing.clients.buyers import Buyer
from farthing.protocol.errors import Unverified
from tests.clients.test_bridge import NOBODY, bridged


async def test_a_call_that_would_fail_again_is_not_said_to_go_on_under_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "the-key-of-one-purchase"
    async with bridged(tmp_path) as agent:
        absent = await agent.refused("register", operator_id=NOBODY, name="Reader")
        await agent.ready()
        odd = agent.purchase() | {"idempotency_key": key}
        mended = await agent.refused("call_service", **(odd | {"arguments": {"pdf": 1}}))
        with monkeypatch.context() as patched:
            patched.setattr(Buyer, "quote", unverified)
            unheld = await agent.refused("call_service", **odd)
        bought = await agent.buy(idempotency_key=key)

    assert (mended["code"], mended["next_action"]) == ("invalid_argument", "fix_request")
    assert absent["next_action"] == "fix_request"
    assert "hint" not in mended
    assert "hint" not in absent
    # What does not hold may have been done all the same.
    assert (unheld["code"], unheld["next_action"]) == ("signature_invalid", "contact_operator")
    assert unheld["hint"].startswith("To go on with this very call")
    assert bought["idempotency_key"] == key


async def unverified(*_: object, **__: object) -> None:
    raise Unverified("the quote is not of what was asked")
