"""Who holds a key: asked of the registry once, remembered within bounds."""

from farthing.identity.directory import Directory, Found
from farthing.protocol.wire import Role
from tests.papers import signing_key

KEYS = {key.thumbprint: key for key in map(signing_key, "abc")}
A, B, C = KEYS


class Registry:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def find(self, thumbprint: str) -> Found | None:
        self.asked.append(thumbprint)
        key = KEYS.get(thumbprint)
        return (
            None if key is None else (f"agt_{thumbprint}", "org_1", "buyer", key.public.jwk(), "")
        )


async def test_a_holder_is_asked_for_once_and_then_known() -> None:
    registry = Registry()
    directory = Directory(registry.find)

    before = directory.known(A)
    found = await directory.holder(A)
    again = await directory.holder(A)

    assert before is None
    assert found is again is directory.known(A)
    assert found is not None
    assert (found.principal_id, found.organisation_id, found.role) == (
        f"agt_{A}",
        "org_1",
        Role.BUYER,
    )
    assert found.key.thumbprint == A
    assert registry.asked == [A]


async def test_that_nobody_holds_a_key_is_not_remembered_as_it_may_be_registered_next() -> None:
    registry = Registry()
    directory = Directory(registry.find)

    answers = [await directory.holder("nobody"), await directory.holder("nobody")]

    assert answers == [None, None]
    assert registry.asked == ["nobody", "nobody"]


async def test_the_holders_longest_unseen_are_forgotten_first() -> None:
    registry = Registry()
    directory = Directory(registry.find, holders_max=2)

    for thumbprint in (A, B, A, C):
        await directory.holder(thumbprint)

    assert (directory.known(A) is None, directory.known(B) is None) == (False, True)
    assert registry.asked == [A, B, C]
