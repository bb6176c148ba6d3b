"""compose.yml: the whole product in use, behind another proxy, and with containers killed."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from dev.processes import free_port
from service.settings import Settings
from tests.image.docker import docker

PASSWORDS = (
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "RABBITMQ_PASSWORD",
    "RABBITMQ_READER_PASSWORD",
    "ROWLOCK_TOKEN_SECRET",
    "ROWLOCK_SMOKE_PASSWORD",
)

READS_MAX = 4 * int(Settings.model_fields["address_requests_per_minute"].default)
"""Above the limit of one address, even if a new minute begins meanwhile; below it for each of 250 addresses."""
NETWORKS = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
"""The networks of Docker, in one of which this machine has an address."""


@dataclass(frozen=True, slots=True)
class Product:
    """A compose project of its own."""

    name: str
    variables: dict[str, str]
    url: str

    def compose(self, *arguments: str, expected: int = 0) -> str:
        """The output of docker compose."""
        command = ("compose", "--progress", "plain", "--project-name", self.name, *arguments)
        return docker(*command, variables=self.variables, expected=expected)

    def kill(self, service: str) -> None:
        """Kills one container of the service."""
        docker("kill", self.compose("ps", "--quiet", service).split()[0])

    def smoke(self) -> str:
        """The output of `service.smoke`, which goes through the proxy."""
        return self.compose("run", "--rm", "smoke")


@pytest.fixture(scope="module")
def product(image: str) -> Iterator[Product]:
    """The healthy product; at the end it is removed with its data."""
    port = free_port()
    variables = {name: secrets.token_hex(24) for name in PASSWORDS}
    variables |= {"ROWLOCK_IMAGE": image, "ROWLOCK_PUBLISH": f"127.0.0.1:{port}"}
    made = Product(f"rowlock-{secrets.token_hex(4)}", variables, f"http://127.0.0.1:{port}")
    try:
        made.compose("up", "--detach", "--wait", "--no-build")
        yield made
    finally:
        made.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


def test_without_passwords_nothing_starts() -> None:
    said = docker("compose", "--env-file", "/dev/null", "config", expected=1, variables=dict.fromkeys(PASSWORDS, ""))
    assert "run make compose" in said


def test_seats_are_held_refused_and_sold_through_the_proxy(product: Product) -> None:
    assert "FAIL" not in product.smoke()
    assert httpx.get(f"{product.url}/api-docs").status_code == 200


def test_only_the_proxy_is_published(product: Product) -> None:
    running = json.loads(f"[{','.join(product.compose('ps', '--format', 'json').splitlines())}]")
    published = {one["Service"] for one in running for port in one["Publishers"] if port["PublishedPort"]}
    assert published == {"proxy"}


def statuses(product: Product, count: int, addresses: int) -> set[int]:
    """The statuses of reads whose X-Forwarded-For rotates through so many addresses."""
    with httpx.Client(base_url=product.url) as client:
        return {
            client.get(
                "/customer/list-sessions?limit=1", headers={"X-Forwarded-For": f"203.0.113.{number % addresses}"}
            ).status_code
            for number in range(count)
        }


def test_a_forged_address_does_not_evade_the_limit(product: Product) -> None:
    assert statuses(product, READS_MAX, 250) == {200, 429}
    assert "FAIL" not in product.smoke()


def test_it_sells_without_one_api_and_one_expirer(product: Product) -> None:
    product.kill("api")
    product.kill("expirer")
    assert "FAIL" not in product.smoke()
    with contextlib.closing(httpx.Client(base_url=product.url)) as client:
        # A new connection each time, since the proxy keeps its connections.
        assert {client.get("/readyz", headers={"Connection": "close"}).status_code for _ in range(20)} == {200}
    product.compose("up", "--detach", "--wait", "--no-build")
    for service in ("api", "expirer"):
        assert len(product.compose("ps", "--quiet", service).split()) == 2


def test_clients_of_an_outer_proxy_are_limited_one_by_one(product: Product) -> None:
    behind = replace(product, variables=product.variables | {"ROWLOCK_OUTER_PROXIES": NETWORKS})
    behind.compose("up", "--detach", "--wait", "--no-build")
    assert statuses(behind, READS_MAX, 250) == {200}
    assert statuses(behind, READS_MAX, 1) == {200, 429}
