"""Unix sockets that the processes of one server speak through.

Boundary: makes them; what is said through them is others'.
Source: spec/design/09-engine-process.md.
"""

import os
import socket
from pathlib import Path
from typing import Final

__all__ = ["owners_socket"]

_BACKLOG: Final = 64


def owners_socket(address: Path) -> socket.socket:
    """Listen at an address, for the owner alone; a socket that was left behind is replaced.

    Only whoever the address belongs to may call this: nobody is asked whether it is in use.

    Raises:
        OSError: the socket cannot be made there.
    """
    address.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(str(address))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(old)
    listener.listen(_BACKLOG)
    listener.settimeout(0)
    return listener
