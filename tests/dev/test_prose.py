"""The prose check: each rule finds an example of its pattern, and good sentences and code pass."""

import pytest

from dev import prose

BAD = {
    "a clause without a noun": (
        "It removes what\n# is older.",
        "What a request needs.",
        "- who pays late loses",
    ),
    "name who it is": ("Somebody else holds it.", "Whoever reads it is late."),
    "record, report": ("The log tells why.", "No customer is told."),
    "missing, invalid": ("The token is\nno JWT.", "Its owner is none."),
    "again, automatically": ("It begins anew.", "It ends by\nitself.", "Silent so long."),
    "fix, repair": ("Mend the data.",),
    "check, read": ("It looks at the log.", "Look whether it runs."),
    "is": ("It stands in the log.",),
    "current": ("PostgreSQL's present time.",),
    "down, unreachable": ("PostgreSQL is away.",),
    "release or return": ("It gives seats back.",),
}
GOOD = (
    "Customers who pay late lose their seats.",
    "Customers\nwho pay late lose their seats.",
    "What is an outbox?",
    "There are\nno events. It is no longer paid.",
    "The value is None without Redis.",
    "OTLP stands for OpenTelemetry's protocol.",
    "It shows what to do. What to do next follows.",
    "For operators: what happens in an outage.",
)


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in BAD.items() for text in texts])
def test_a_rule_finds_its_pattern(rule: str, text: str) -> None:
    (found,) = prose.findings("docs/page.md", f"A page.\n\n{text}\n")
    assert found.startswith(f"docs/page.md:3: {rule}")


@pytest.mark.parametrize("text", GOOD)
def test_a_good_sentence_passes(text: str) -> None:
    assert list(prose.findings("docs/page.md", f"A page.\n\n{text}\n")) == []


def test_every_rule_has_an_example() -> None:
    assert all(any(rule.startswith(known) for known in BAD) for rule in prose.RULES)
    assert len(BAD) == len(prose.RULES)


def test_a_heading_may_be_a_question() -> None:
    assert list(prose.findings("docs/page.md", "A page.\n\n## What it means\n")) == []
    assert len(list(prose.findings("chart/values.yaml", "# What it means\n"))) == 1


def test_code_is_left_out() -> None:
    assert list(prose.findings("docs/page.md", "Run `what is told`.\n\n```sh\ntell nobody\n```\n")) == []
    assert list(prose.findings("service/a.py", "told = 'nobody'\n")) == []
    assert list(prose.findings("chart/a.tpl", "{{ .Values.nobody }}\n")) == []


def test_comments_of_templates_are_read() -> None:
    (found,) = prose.findings("chart/a.tpl", "{{/* Nobody reads it. */}}\n")
    assert found.startswith("chart/a.tpl:1: name who it is")


def test_strings_of_modules_are_read_with_their_line() -> None:
    found = list(prose.findings("service/a.py", 'x = 1\ny = f"{x} tells it"\n\n\ndef z():\n    """It tells."""\n'))
    assert [line.rpartition(": record")[0] for line in found] == ["service/a.py:2", "service/a.py:6"]


def test_a_long_test_name_is_found() -> None:
    names = "test_" + "a" * 55, "test_" + "b" * 56
    source = "".join(f"async def {name}(): ...\n" for name in names)
    (found,) = prose.findings("tests/a/test_b.py", source)
    assert found == f"tests/a/test_b.py:2: a test's name has at most 60 characters: {names[1]}"


def test_the_prose_of_tests_is_left_out() -> None:
    assert list(prose.findings("tests/a/test_b.py", '"""Nobody tells."""\n')) == []
