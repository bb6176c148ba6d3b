"""Addresses to listen on, as others write them."""


def authority(host: str, port: int) -> str:
    """As in a URL (RFC 3986, 3.2): an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
