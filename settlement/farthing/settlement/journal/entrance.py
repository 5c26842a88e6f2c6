"""Where front ends come in: a socket for the owner's processes alone.

Boundary: takes connections and hands them on; what is said on one is the service's. Waits out a
system that has no descriptor left, which would else wake the loop without end.
Source: spec/design/09-engine-process.md.
"""

import contextlib
import errno
import logging
import selectors
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from farthing.settlement.journal.sockets import owners_socket

__all__ = ["Entrance"]

logger = logging.getLogger(__name__)

_PAUSE_NS: Final = 1_000_000_000
_NOBODY_THERE: Final = frozenset({errno.EAGAIN, errno.ECONNABORTED})
_UCRED: Final = struct.Struct("3i")


class Entrance:
    """A listening socket in a loop's selector.

    Args:
        address: where the socket lies; made by `open`, removed by `close`.
        uid: the user whose processes may come in.
        selector: the loop's; its keys carry a function of the mask.
        enter: given each connection, blocking and open.
    """

    def __init__(
        self,
        address: Path,
        *,
        uid: int,
        selector: selectors.BaseSelector,
        enter: Callable[[socket.socket], None],
    ) -> None:
        self._address = address
        self._uid = uid
        self._selector = selector
        self._enter = enter
        self._listener: socket.socket | None = None
        self._again_at_ns: int | None = None

    @property
    def again_at_ns(self) -> int | None:
        """When `look` is to be called, where nobody is taken until then."""
        return self._again_at_ns

    def open(self) -> None:
        """Make the socket; one that was left behind is replaced.

        Raises:
            OSError: the socket cannot be made there.
        """
        self._listener = owners_socket(self._address)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def look(self, now_ns: int) -> None:
        """Take connections again, once it is time."""
        if self._again_at_ns is None or now_ns < self._again_at_ns:
            return
        self._again_at_ns = None
        assert self._listener is not None
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Take nobody any more. Twice is once."""
        if self._listener is None:
            return
        if self._again_at_ns is None:
            self._selector.unregister(self._listener)
        self._again_at_ns = None
        self._listener.close()
        self._listener = None
        with contextlib.suppress(OSError):
            self._address.unlink(missing_ok=True)

    def _accept(self, mask: int) -> None:
        del mask
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in _NOBODY_THERE:
                logger.exception("a connection could not be taken")
                # Whoever waits still does, and would wake the loop at once.
                self._selector.unregister(self._listener)
                self._again_at_ns = time.monotonic_ns() + _PAUSE_NS
            return
        uid = _uid_of(sock)
        if uid not in {None, self._uid}:
            logger.warning("a connection of user %s was refused", uid)
            sock.close()
            return
        self._enter(sock)


def _uid_of(sock: socket.socket) -> int | None:
    """The user at the other end, where the system tells; else the mode of the socket's file."""
    option: Any = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return int(uid)
