"""The engine's listening socket by itself, in a selector that a test turns."""

import errno
import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from farthing.settlement.journal.entrance import Entrance
from tests.patience import PATIENCE_S


@dataclass(slots=True)
class Loop:
    """Turns of a loop, and who came in."""

    address: Path
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    entered: list[socket.socket] = field(default_factory=list)

    def turn(self, wait_s: float = 0) -> int:
        """How many events woke it."""
        events = self.selector.select(wait_s)
        for key, mask in events:
            key.data(mask)
        return len(events)

    @contextmanager
    def opened(self, uid: int | None = None) -> Iterator[Entrance]:
        entrance = Entrance(
            self.address,
            uid=os.getuid() if uid is None else uid,
            selector=self.selector,
            enter=self.entered.append,
        )
        entrance.open()
        try:
            yield entrance
        finally:
            entrance.close()
            for sock in self.entered:
                sock.close()
            self.selector.close()

    @contextmanager
    def knocking(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(self.address))
            yield sock


@pytest.fixture
def loop() -> Iterator[Loop]:
    with TemporaryDirectory() as folder:
        yield Loop(Path(folder) / "engine.sock")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_a_descriptor_left_the_loop_rests_and_takes_who_waits_later(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none_left(sock: Any) -> Any:
        del sock
        raise OSError(number, os.strerror(number))

    with loop.opened() as entrance, loop.knocking():
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "accept", none_left)
            woken = [loop.turn(10), loop.turn(), loop.turn()]
        again_at_ns = entrance.again_at_ns
        assert again_at_ns is not None
        entrance.look(again_at_ns - 1)
        early = loop.turn()
        entrance.look(again_at_ns)
        loop.turn(10)

        assert woken == [1, 0, 0]
        assert early == 0
        assert len(loop.entered) == 1
        assert entrance.again_at_ns is None


def test_closed_while_it_rests_it_is_gone(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(sock: Any) -> Any:
        del sock
        raise OSError(errno.EMFILE, "none left")

    with loop.opened() as entrance, loop.knocking():
        monkeypatch.setattr(socket.socket, "accept", none_left)
        loop.turn(10)
        entrance.close()

        assert entrance.again_at_ns is None
        assert not loop.address.exists()
        assert loop.turn() == 0


def test_another_users_process_does_not_come_in(loop: Loop) -> None:
    with loop.opened(uid=os.getuid() + 1), loop.knocking() as sock:
        loop.turn(10)

        assert sock.recv(1) == b""
        assert loop.entered == []
