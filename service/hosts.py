"""Addresses to listen on, as others write them."""

import socket

BACKLOG = 2048
"""Connections that wait to be accepted, as uvicorn's default."""


def without_brackets(host: str) -> str:
    """An IPv6 address may be given as in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def authority(host: str, port: int) -> str:
    """As in a URL (RFC 3986, 3.2): an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound(host: str, port: int) -> socket.socket:
    """A socket for TCP; on `::` by IPv4 too. Raises OSError, which names both."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::", backlog=BACKLOG)
    except (OSError, ValueError) as error:
        raise OSError(f"can't listen on {authority(host, port)}: {error}") from error
