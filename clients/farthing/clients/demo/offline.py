"""The `farthing` command in a process that cannot reach anybody: `python -I -m ...offline verify`.

Boundary: refuses whatever would open a connection, then runs the command as it is.
"""

import sys
from typing import Final

__all__ = ["main", "shut_off"]

# Raised before the thing is done (PEP 578); there is no way to take the hook out again.
_SHUT: Final = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system")


def shut_off() -> None:
    """Refuse, from now on, every socket and every new process."""
    sys.addaudithook(_refuse)


def main() -> None:
    """Run the `farthing` command, shut off."""
    shut_off()
    from farthing.clients.cli import main as farthing  # noqa: PLC0415 - nothing before the hook

    farthing()


def _refuse(event: str, _: object) -> None:
    if event.startswith(_SHUT):
        raise PermissionError(f"offline: {event}")


if __name__ == "__main__":
    main()
