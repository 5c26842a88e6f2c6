"""Who reaches the server itself, and neither by its public name nor by way of a proxy.

Boundary: judges where a request came from, not who sent it. Source: spec/transport-http.md#metrics.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = ["METRICS", "is_direct"]

METRICS: Final = "/metrics"
_BY_PROXY: Final = (b"forwarded", b"via", b"x-forwarded-", b"x-real-ip")


def is_direct(scope: Mapping[str, Any]) -> bool:
    """Whether a request came from this machine or network, to an address or to `localhost`.

    A page that a name of its own leads here has that name in `Host`. What a proxy passes on has
    its headers, and mostly a name; one that adds none cannot be told from who asks here.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if any(name.startswith(_BY_PROXY) for name, _ in headers):
        return False
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    try:
        named = urlsplit(f"//{hosts[0] if len(hosts) == 1 else ''}").hostname or ""
        if named != "localhost":
            ip_address(named)
        return not ip_address(scope["client"][0]).is_global
    # There may be no client either.
    except (TypeError, ValueError):
        return False
