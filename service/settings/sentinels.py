"""A Redis behind Sentinel, by its URL: `redis+sentinel://:password@host:26379,host:26379/name/0`."""

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
"""Each with the scheme of the servers behind it. With `rediss` the sentinels are asked by TLS too."""
DEFAULT_PORT = 26_379
PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Where they answer, the master's name, and the master's URL but for its host. `password` is the sentinels' own."""

    addresses: tuple[tuple[str, int], ...]
    name: str
    url: str
    password: str | None


def sentinels_of(url: str) -> Sentinels | None:
    """None for a URL of another scheme. Raises ValueError, whose text does not repeat the URL."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        return None
    parts = urlsplit(f"{SCHEMES[scheme]}://{rest}")
    account, at, hosts = parts.netloc.rpartition("@")
    name, _, database = parts.path.strip("/").partition("/")
    if not name or not (database or "0").isdecimal():
        raise ValueError("the URL's path should be the master's name, and the number of the database after it")
    query = parse_qs(parts.query)
    password = query.pop("sentinel_password", [None])[0]
    target = (parts.scheme, f"{account}{at}sentinel", f"/{database or 0}", urlencode(query, doseq=True), "")
    return Sentinels(tuple(map(_address, hosts.split(","))), unquote(name), urlunsplit(target), password)


def names_sentinels(value: SecretStr | None) -> SecretStr | None:
    """A check of a URL: one that is for sentinels must name them."""
    if value is not None:
        sentinels_of(value.get_secret_value())
    return value


def _address(text: str) -> tuple[str, int]:
    """Raises ValueError. An IPv6 address is in brackets."""
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, str(DEFAULT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) <= PORT_MAX:
        raise ValueError("the URL's hosts should be those of the sentinels, as host:26379,host:26379")
    return host.strip("[]"), int(port)
