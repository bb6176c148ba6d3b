"""Addresses to listen on: brackets, URLs and sockets."""

import socket

BACKLOG = 2048
"""The most connections that wait to be accepted; uvicorn's default."""


def without_brackets(host: str) -> str:
    """The address without the brackets that an IPv6 address has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def authority(host: str, port: int) -> str:
    """Host and port as in a URL (RFC 3986, 3.2), with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound(host: str, port: int) -> socket.socket:
    """A TCP socket; on `::` it accepts IPv4 too. Raises OSError with the address and the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::", backlog=BACKLOG)
    except (OSError, ValueError) as error:
        raise OSError(f"can't listen on {authority(host, port)}: {error}") from error
