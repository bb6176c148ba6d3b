"""The documentation at /api-docs needs no other server, and has an example for every body and every refusal."""

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import httpx
import jsonschema_rs
import pytest

from service.api import problems
from service.app import create_app
from service.database import Connection
from service.settings import Settings
from tests.stage.edge import TYPE_PREFIX
from tests.stage.factories import make_customer, make_manager, make_session, make_settings

REFERENCES = re.compile(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']|url\(["']?([^"')]+)""")
OTHER_HOST = re.compile(r"^(?:[a-z]+:)?//")
DOCUMENT: dict[str, Any] = create_app(make_settings("postgresql://rowlock@127.0.0.1/rowlock")).openapi()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """All operations, as (METHOD /path, operation)."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


OPERATIONS = dict(operations())


async def test_the_page_needs_no_other_host(client: httpx.AsyncClient) -> None:
    page = await client.get("/api-docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    references = {first or second for first, second in REFERENCES.findall(page.text)}
    assert {"openapi.json", "swagger-ui-bundle.js", "swagger-ui.css"} <= {
        each.rpartition("/")[2] for each in references
    }
    for reference in references:
        assert not OTHER_HOST.match(reference), reference
        assert not reference.startswith("/"), "it must work below a prefix"
        asset = await client.get(f"/{reference}")
        assert asset.status_code == 200, reference
        assert len(asset.content) > 100, reference


async def test_the_page_runs_only_its_own_scripts(client: httpx.AsyncClient) -> None:
    page = await client.get("/api-docs")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert '"persistAuthorization": false' in page.text, "the token would stay in the browser"


@pytest.mark.parametrize(("root_path", "url"), [("", "/"), ("/tickets", "/tickets")])
def test_the_document_names_the_place_of_the_api(root_path: str, url: str) -> None:
    settings = make_settings("postgresql://rowlock@127.0.0.1/rowlock", root_path=root_path)
    assert create_app(settings).openapi()["servers"] == [{"url": url}]


async def place_of(client: httpx.AsyncClient, name: str) -> str:
    """The path of one of the page's files."""
    page = (await client.get("/api-docs")).text
    (place,) = [url for found in REFERENCES.findall(page) for url in found if url.endswith(name)]
    return f"/{place}"


async def test_the_files_of_the_page_are_compressed_and_cached(client: httpx.AsyncClient) -> None:
    place = await place_of(client, "swagger-ui-bundle.js")
    packed = await client.get(place)
    plain = await client.get(place, headers={"Accept-Encoding": "identity"})
    assert packed.content == plain.content
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"]) / 3
    for reply in (packed, plain):
        assert "immutable" in reply.headers["Cache-Control"]
        assert reply.headers["Vary"] == "Accept-Encoding"
    for other in ("/api-docs/assets/0/swagger-ui-bundle.js", place + "x"):
        assert (await client.get(other)).status_code == 404


async def test_the_style_sheet_loads_nothing_from_another_host(client: httpx.AsyncClient) -> None:
    style = (await client.get(await place_of(client, "swagger-ui.css"))).text
    loaded = re.findall(r"url\(([^)]*)\)|@import\s+([^;]*)", style)
    assert [url for found in loaded for url in found if OTHER_HOST.match(url.strip("\"' "))] == []


async def test_the_document_that_is_served_is_the_applications_own(client: httpx.AsyncClient) -> None:
    served = (await client.get("/openapi.json")).json()
    assert served["paths"].keys() == DOCUMENT["paths"].keys()
    assert served["components"]["schemas"].keys() == SCHEMAS.keys()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_documents_purpose_access_and_answers(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    codes = set(operation["responses"])
    assert sum(code.startswith("2") for code in codes) == 1
    assert bool(operation["security"]) is ({"401", "403"} <= codes)
    assert ("requestBody" not in operation) or {"400", "413", "415", "422"} <= codes
    assert "503" in codes or name == "GET /livez"


@pytest.mark.parametrize("name", OPERATIONS)
def test_documented_refusals_have_examples_of_status_and_type(name: str) -> None:
    refusals = {code: answer for code, answer in OPERATIONS[name]["responses"].items() if code.startswith(("4", "5"))}
    for code, answer in refusals.items():
        assert list(answer["content"]) == ["application/problem+json"]
        content = answer["content"]["application/problem+json"]
        assert content["examples"]
        for example_name, example in content["examples"].items():
            value = example["value"]
            assert value["type"] == TYPE_PREFIX + re.sub(r"-\d$", "", example_name)
            assert value["status"] == int(code)
            schema = content["schema"] | {"components": DOCUMENT["components"]}
            assert list(jsonschema_rs.validator_for(schema).iter_errors(value)) == []
            assert all(value[member] for member in ("title", "detail", "requestId"))


def test_every_refusal_of_a_route_is_documented() -> None:
    documented = {
        re.sub(r"-\d$", "", example)
        for operation in OPERATIONS.values()
        for answer in operation["responses"].values()
        for example in answer.get("content", {}).get("application/problem+json", {}).get("examples", {})
    }
    known = {problem.name for problem in problems.PROBLEMS.values()}
    everywhere = {"route-not-found", "method-not-allowed", "internal-error", "head-too-large", "request-timeout"}
    assert known - documented == everywhere
    assert documented <= known


def explains_itself(schema: dict[str, Any]) -> bool:
    """Whether an example, a list of values or the parts show a reader what a value is like."""
    if schema.keys() & {"examples", "example", "enum", "const", "$ref", "default"}:
        return True
    parts = [*schema.get("anyOf", []), *schema.get("allOf", []), *([schema["items"]] if "items" in schema else [])]
    return any(explains_itself(part) for part in parts)


@pytest.mark.parametrize(
    "name", [name for name, schema in SCHEMAS.items() if "properties" in schema and not name.endswith("Problem")]
)
def test_every_field_of_every_body_has_an_example(name: str) -> None:
    properties: dict[str, Any] = SCHEMAS[name]["properties"]
    assert [field for field, schema in properties.items() if not explains_itself(schema)] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_parameter_explains_itself(name: str) -> None:
    for parameter in OPERATIONS[name].get("parameters", []):
        assert explains_itself(parameter["schema"]) or parameter.get("description"), parameter["name"]


def example_of(name: str) -> dict[str, Any]:
    """A body of the examples of its fields, as the page offers it."""
    return {field: schema["examples"][0] for field, schema in SCHEMAS[name]["properties"].items()}


async def test_the_bodies_that_the_page_offers_are_accepted(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    customer, manager = await make_customer(sql, settings), await make_manager(sql, settings)
    made = await client.post("/manager/create", json=example_of("CreateSession"), headers=manager.headers)
    assert made.status_code == 201
    await make_session(sql, settings)
    for path, name, status in (
        ("/sign-up", "SignUp", 201),
        ("/sign-in", "SignIn", 200),
        ("/customer/book", "Hold", 201),
    ):
        reply = await client.post(path, json=example_of(name), headers=customer.headers)
        assert reply.status_code == status, reply.text
