"""compose.yml: the whole product, used and hurt."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from dev.postgres import free_port
from service.settings import Settings
from tests.image.docker import docker

PASSWORDS = (
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "RABBITMQ_PASSWORD",
    "ROWLOCK_TOKEN_SECRET",
    "ROWLOCK_SMOKE_PASSWORD",
)

READS_MAX = 4 * int(Settings.model_fields["address_requests_per_minute"].default)
"""More than an address may have, also if a minute ends meanwhile; over 250 addresses it would not be many."""


@dataclass(frozen=True, slots=True)
class Product:
    """A compose project of its own."""

    name: str
    variables: dict[str, str]
    url: str

    def compose(self, *arguments: str, expected: int = 0) -> str:
        """What docker compose prints."""
        command = ("compose", "--progress", "plain", "--project-name", self.name, *arguments)
        return docker(*command, variables=self.variables, expected=expected)

    def kill(self, service: str) -> None:
        """One container of it, without a word."""
        docker("kill", self.compose("ps", "--quiet", service).split()[0])

    def smoke(self) -> str:
        """The flow that `service.smoke` shows, through the proxy."""
        return self.compose("run", "--rm", "smoke")


@pytest.fixture(scope="module")
def product(image: str) -> Iterator[Product]:
    """The product, healthy; ended with its data."""
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


def test_what_is_published_is_the_proxy_alone(product: Product) -> None:
    running = json.loads(f"[{','.join(product.compose('ps', '--format', 'json').splitlines())}]")
    published = {one["Service"] for one in running for port in one["Publishers"] if port["PublishedPort"]}
    assert published == {"proxy"}


def test_an_address_is_limited_whatever_it_says_of_itself_and_others_are_served(product: Product) -> None:
    with httpx.Client(base_url=product.url) as client:
        answers = (
            client.get("/customer/list-sessions?limit=1", headers={"X-Forwarded-For": f"203.0.113.{number % 250}"})
            for number in range(READS_MAX)
        )
        assert any(answer.status_code == 429 for answer in answers)
    assert "FAIL" not in product.smoke()


def test_it_sells_on_without_one_api_and_one_expirer_and_comes_back_whole(product: Product) -> None:
    product.kill("api")
    product.kill("expirer")
    assert "FAIL" not in product.smoke()
    with contextlib.closing(httpx.Client(base_url=product.url)) as client:
        # A connection each, since the proxy keeps those that it has.
        assert {client.get("/readyz", headers={"Connection": "close"}).status_code for _ in range(20)} == {200}
    product.compose("up", "--detach", "--wait", "--no-build")
    for service in ("api", "expirer"):
        assert len(product.compose("ps", "--quiet", service).split()) == 2
