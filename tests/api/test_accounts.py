"""Accounts over HTTP: sign-up, sign-in, addresses in any case, roles, and the command that makes managers."""

import asyncio
import sys
import unicodedata

import httpx
import pytest
from argon2 import PasswordHasher

from dev.postgres import Postgres
from dev.processes import free_port
from service.app import create_app
from service.database import Connection
from service.errors import NotReady
from service.settings import Settings
from tests.conftest import serving
from tests.stage.edge import Refused, ledger
from tests.stage.factories import make_settings
from tests.stage.processes import ROOT, environment

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
IN_USE = Refused(409, "address-in-use")
WRONG = Refused(401, "wrong-credentials")


async def sign_up(client: httpx.AsyncClient, email: str = EMAIL, **changes: str) -> httpx.Response:
    """A new account."""
    return await client.post("/sign-up", json={"email": email, "password": PASSWORD, "name": "Ada", **changes})


async def sign_in(client: httpx.AsyncClient, email: str = EMAIL, password: str = PASSWORD) -> httpx.Response:
    """A token."""
    return await client.post("/sign-in", json={"email": email, "password": password})


async def test_who_signs_up_is_signed_in_and_can_sign_in_again(client: httpx.AsyncClient, sql: Connection) -> None:
    made, again = await sign_up(client), await sign_in(client)
    assert (made.status_code, again.status_code) == (201, 200)
    for reply in (made.json(), again.json()):
        assert (reply["name"], reply["role"]) == ("Ada", "CUSTOMER")
        assert reply["accountId"] == str(await sql.fetchval("select id from accounts"))
        headers = {"Authorization": f"Bearer {reply['token']}"}
        assert (await client.get("/customer/list-history", headers=headers)).status_code == 200


async def test_a_password_is_kept_as_an_argon2id_hash_only(client: httpx.AsyncClient, sql: Connection) -> None:
    await sign_up(client)
    await sign_up(client, "grace@example.com")
    hashes = [row["password_hash"] for row in await sql.fetch("select password_hash from accounts")]
    assert all(kept.startswith("$argon2id$") for kept in hashes)
    assert len(set(hashes)) == 2
    assert PASSWORD not in str(await sql.fetch("select * from accounts"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ada@example.com", "ADA@EXAMPLE.COM"),
        ("Ada@Example.com", "ada@example.com"),
        # Whether the database knows more letters than ASCII must not matter, nor how they are composed.
        ("ädä@example.com", "ÄDÄ@example.com"),
        ("a\u0308d@example.com", "äd@example.com"),
    ],
)
async def test_an_address_is_one_account_in_any_case(first: str, second: str, client: httpx.AsyncClient) -> None:
    made = await sign_up(client, first)
    assert made.status_code == 201
    assert IN_USE.complaint(await sign_up(client, second)) is None
    signed_in = await sign_in(client, second)
    assert (signed_in.status_code, signed_in.json()["accountId"]) == (200, made.json()["accountId"])


async def test_ten_sign_ups_of_one_address_at_once_make_one_account(client: httpx.AsyncClient, sql: Connection) -> None:
    replies = await asyncio.gather(*(sign_up(client, email) for email in (EMAIL, EMAIL.upper()) * 5))
    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 9
    assert await sql.fetchval("select count(*) from accounts") == 1


async def test_a_manager_signs_up_only_where_that_is_open(sql: Connection, settings: Settings) -> None:
    closed = settings.model_copy(update={"open_manager_sign_up": False})
    async with serving(closed) as client:
        refused = await sign_up(client, role="MANAGER")
        assert Refused(422, "invalid-request", "role", "CUSTOMER").complaint(refused) is None
        assert await sql.fetchval("select count(*) from accounts") == 0
        assert (await sign_up(client, role="CUSTOMER")).json()["role"] == "CUSTOMER"
    async with serving(settings) as client:
        assert (await sign_up(client, "grace@example.com", role="MANAGER")).json()["role"] == "MANAGER"
        assert (await sign_in(client, "grace@example.com")).json()["role"] == "MANAGER"


def test_the_sign_up_of_managers_is_closed_by_default() -> None:
    settings = Settings(database_url="postgresql://rowlock@127.0.0.1/rowlock", token_secret="x" * 32)
    assert not settings.open_manager_sign_up
    assert create_app(settings).title == "Rowlock"


async def test_an_unknown_address_and_a_wrong_password_look_the_same(client: httpx.AsyncClient) -> None:
    await sign_up(client)
    wrong, unknown = await sign_in(client, password="wrong horse"), await sign_in(client, "grace@example.com")
    assert [WRONG.complaint(reply) for reply in (wrong, unknown)] == [None, None]
    assert wrong.json() | {"requestId": ""} == unknown.json() | {"requestId": ""}
    assert set(wrong.headers) == set(unknown.headers)
    assert wrong.headers["content-length"] == unknown.headers["content-length"]


async def make_manager(database_url: str, *arguments: str, password: str = "") -> tuple[int | None, str, str]:
    """Runs the command; its exit code, what it says, and what it complains of."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service.make_manager", *arguments,
        env=environment(database_url, connect_timeout_ms=1_000), cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, complained = await process.communicate(f"{password}\n".encode())
    return process.returncode, said.decode(), complained.decode()


async def test_the_command_makes_a_new_manager_who_can_sign_in(
    postgres: Postgres, client: httpx.AsyncClient, sql: Connection
) -> None:
    made = await make_manager(postgres.url(), "Grace@Example.com", "Grace Hopper", password=PASSWORD)
    assert made == (0, "Grace@Example.com is a new manager.\n", "")
    signed_in = (await sign_in(client, "grace@example.com")).json()
    assert (signed_in["role"], signed_in["name"]) == ("MANAGER", "Grace Hopper")
    assert await sql.fetchval("select count(*) from accounts") == 1


async def test_the_command_promotes_an_account_from_its_next_sign_in(
    postgres: Postgres, client: httpx.AsyncClient
) -> None:
    token = (await sign_up(client)).json()["token"]
    code, said, complained = await make_manager(postgres.url(), EMAIL.upper(), password="another password")
    assert (code, complained) == (0, "")
    assert "from the next sign-in on" in said
    # The role is the one that the account had when it signed in.
    headers = {"Authorization": f"Bearer {token}"}
    assert (await client.get("/customer/list-history", headers=headers)).status_code == 200
    assert (await sign_in(client)).json()["role"] == "MANAGER"


async def test_the_command_explains_its_failure_in_one_line(postgres: Postgres, sql: Connection) -> None:
    before = await ledger(sql)
    nowhere = f"postgresql://rowlock:secret@127.0.0.1:{free_port()}/rowlock"
    answers = await asyncio.gather(
        make_manager(postgres.url(), EMAIL, password="elevenchars"),
        make_manager(postgres.url("no_such_database"), EMAIL, password=PASSWORD),
        make_manager(nowhere, EMAIL, password=PASSWORD),
        make_manager(postgres.url("template1"), EMAIL, password=PASSWORD),
    )
    for code, said, complained in answers:
        assert (code, said) == (1, "")
        assert complained.startswith("make_manager: ")
        assert complained.count("\n") == 1
        assert "secret" not in complained
    assert "at least 12 characters" in answers[0][2]
    assert "python -m service.migrate" in answers[3][2]
    assert await ledger(sql) == before


async def test_an_api_on_a_database_without_the_schema_does_not_start(postgres: Postgres) -> None:
    with pytest.raises(NotReady, match=r"python -m service\.migrate"):
        async with serving(make_settings(postgres.url("template1"))):
            pass


@pytest.mark.parametrize("typed", ["ada@xn--bcher-kva.example", "ada@bücher.example", "ADA@BÜCHER.example"])
async def test_an_address_signs_in_however_its_domain_is_written(client: httpx.AsyncClient, typed: str) -> None:
    body = {"email": typed, "password": PASSWORD, "name": "Ada"}
    assert (await client.post("/sign-up", json=body)).status_code == 201
    for email in ("ada@xn--bcher-kva.example", "ada@bücher.example"):
        reply = await client.post("/sign-in", json={"email": email, "password": PASSWORD})
        assert reply.status_code == 200


@pytest.mark.parametrize("typed", [" ada@example.com", "ada@example.com ", "\u00a0ADA@example.com\u2003"])
async def test_spaces_around_an_address_do_not_matter(client: httpx.AsyncClient, typed: str) -> None:
    for path, name in (("/sign-up", {"name": "Ada"}), ("/sign-in", {})):
        reply = await client.post(path, json={"email": typed, "password": PASSWORD, **name})
        assert reply.is_success


GREETING = "Gr\u00fc\u00dfe aus K\u00f6ln"


@pytest.mark.parametrize(
    ("chosen", "typed"),
    [
        (GREETING, unicodedata.normalize("NFD", GREETING)),
        (unicodedata.normalize("NFD", GREETING), GREETING),
        (GREETING, GREETING.replace(" ", "\u00a0")),
    ],
)
async def test_a_password_works_in_each_of_its_forms(client: httpx.AsyncClient, chosen: str, typed: str) -> None:
    assert (await client.post("/sign-up", json={"email": EMAIL, "password": chosen, "name": "Ada"})).is_success
    assert (await client.post("/sign-in", json={"email": EMAIL, "password": typed})).is_success
    assert (await client.post("/sign-in", json={"email": EMAIL, "password": typed.upper()})).status_code == 401


async def test_a_hash_of_before_the_forms_goes_on_working(client: httpx.AsyncClient, sql: Connection) -> None:
    password = unicodedata.normalize("NFD", GREETING)
    assert (await client.post("/sign-up", json={"email": EMAIL, "password": PASSWORD, "name": "Ada"})).is_success
    await sql.execute("update accounts set password_hash = $1", PasswordHasher().hash(password))
    assert (await client.post("/sign-in", json={"email": EMAIL, "password": password})).is_success
