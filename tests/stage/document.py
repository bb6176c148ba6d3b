"""The OpenAPI document as tests read it: operations, their examples, and what a refusal says."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from service.app import create_app
from service.settings import Settings
from tests.stage.factories import Account, make_settings

PROBLEM = "application/problem+json"
UNKNOWN_VALUE = "x"
DIFFERING = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[0-9:.]+Z")
Document = dict[str, Any]


def document_of(settings: Settings) -> Document:
    """The document of an API with these settings."""
    return create_app(settings).openapi()


DOCUMENT = document_of(make_settings("postgresql://rowlock@127.0.0.1/rowlock"))


@dataclass(frozen=True)
class Operation:
    """One operation, and the request that its examples describe."""

    method: str
    template: str
    described: Document = field(repr=False)

    @property
    def path(self) -> str:
        """The path with the examples of its parameters."""
        path = self.template
        for parameter in self._parameters("path"):
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["schema"]["examples"][0]))
        return path

    @property
    def body(self) -> Document | None:
        """The body of the examples of its fields."""
        if "requestBody" not in self.described:
            return None
        reference = self.described["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
        return {name: each["examples"][0] for name, each in schema["properties"].items() if "examples" in each}

    def wrong(self, name: str) -> tuple[str, Document]:
        """The path and the arguments of a request whose field `name` is wrong; all fields of a body are missing."""
        if self.body is not None:
            return self.path, {"json": {}}
        if f"{{{name}}}" in self.template:
            return self.template.replace(f"{{{name}}}", UNKNOWN_VALUE), {}
        return self.path, {"params": {name: UNKNOWN_VALUE}}

    def headers(self, customer: Account, manager: Account) -> dict[str, str]:
        """Those of an account that may use the operation."""
        if not self.described["security"]:
            return {}
        return (manager if "manager" in self.described["tags"] else customer).headers

    def example(self, status: int, name: str | None = None) -> Document:
        """The first example of the refusal with this status, or the one with this name."""
        examples = self.described["responses"][str(status)]["content"][PROBLEM]["examples"]
        example: Document = (examples[name] if name else next(iter(examples.values())))["value"]
        return example

    def _parameters(self, place: str) -> list[Document]:
        return [each for each in self.described.get("parameters", []) if each["in"] == place]


def operations(document: Document = DOCUMENT) -> Iterator[Operation]:
    """All operations of the document."""
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield Operation(method.upper(), path, described)


def answering(status: int) -> list[Operation]:
    """The operations whose answer with this status is documented."""
    return [each for each in operations() if str(status) in each.described["responses"]]


def told(reply: httpx.Response) -> tuple[int, Document]:
    """The refusal without its request's id."""
    return reply.status_code, {name: value for name, value in reply.json().items() if name != "requestId"}


def expected(status: int, example: Document) -> tuple[int, Document]:
    """The example in the same form."""
    return status, {name: value for name, value in example.items() if name != "requestId"}


def same(found: Any, example: Any) -> bool:
    """Whether both are equal but for ids of reservations and times."""
    return DIFFERING.sub("", str(found)) == DIFFERING.sub("", str(example))


def named(operation_id: str) -> Operation:
    """The operation with this name."""
    return next(each for each in operations() if each.described["operationId"] == operation_id)
