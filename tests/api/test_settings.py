"""Settings: described and bounded, secrets kept secret, faults named all at once, and the README's table."""

from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from dev.settings_table import settings_table, table_in_readme
from service import settings
from service.errors import NotReady
from service.settings import Settings
from tests.stage.factories import TOKEN_SECRET

DATABASE_URL = "postgresql://ada:very-secret@127.0.0.1/rowlock"
FIELDS = Settings.model_fields
NUMBERS = [name for name, field in FIELDS.items() if field.annotation in {int, float}]


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is required is set."""
    for name in FIELDS:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.delenv(settings.SECRETS_DIR, raising=False)
    monkeypatch.setenv("ROWLOCK_DATABASE_URL", DATABASE_URL)
    monkeypatch.setenv("ROWLOCK_TOKEN_SECRET", TOKEN_SECRET)


def variable(name: str) -> str:
    """The variable of a field."""
    return f"ROWLOCK_{name.upper()}"


def bounds(field: FieldInfo) -> tuple[Any, Any]:
    """The least and the most that a number may be."""
    (least,) = (rule.ge for rule in field.metadata if hasattr(rule, "ge"))
    (most,) = (rule.le for rule in field.metadata if hasattr(rule, "le"))
    return least, most


def load_with(monkeypatch: pytest.MonkeyPatch, **values: object) -> Settings:
    """The settings where these variables are set too."""
    for name, value in values.items():
        monkeypatch.setenv(variable(name), str(value))
    return settings.load()


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_described(name: str) -> None:
    description = FIELDS[name].description
    assert description
    assert description[0].isupper() or description[0] == "`"


def test_two_settings_are_required_and_all_others_have_a_default() -> None:
    assert {name for name, field in FIELDS.items() if field.is_required()} == {"database_url", "token_secret"}
    assert len(NUMBERS) > 20


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_may_be_as_small_and_as_large_as_its_bounds_and_no_more(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    least, most = bounds(FIELDS[name])
    beyond = 1 if FIELDS[name].annotation is int else 0.001
    for value in (least, most):
        assert getattr(load_with(monkeypatch, **{name: value}), name) == value
    for value in (least - beyond, most + beyond, "many", ""):
        with pytest.raises(NotReady, match=f"^settings: {variable(name)}: "):
            load_with(monkeypatch, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "mysql://127.0.0.1/rowlock"),
        ("database_url", "postgresql+asyncpg://127.0.0.1/rowlock"),
        ("database_url", "rowlock"),
        ("token_secret", "x" * 31),
        ("token_issuer", ""),
        ("token_audience", ""),
        ("host", ""),
        ("open_manager_sign_up", "perhaps"),
        ("log_level", "loud"),
        ("log_level", "INFO "),
    ],
)
def test_a_text_that_can_not_work_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(NotReady, match=f"^settings: {variable(name)}: ") as refused:
        load_with(monkeypatch, **{name: value})
    if name in {"database_url", "token_secret"}:
        assert value not in str(refused.value)


@pytest.mark.parametrize("url", ["postgres://127.0.0.1/rowlock", "postgresql://database.example:6432/rowlock"])
def test_both_names_of_the_scheme_are_known(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert load_with(monkeypatch, database_url=url).database_url.get_secret_value() == url


@pytest.mark.parametrize("given", ["::1", "[::1]"])
def test_an_ipv6_address_may_stand_in_brackets(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    assert load_with(monkeypatch, host=given).host == "::1"


def test_all_variables_at_fault_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROWLOCK_DATABASE_URL")
    with pytest.raises(NotReady) as refused:
        load_with(monkeypatch, token_secret="short", hold_seconds=0, log_level="loud")
    for name in ("database_url", "token_secret", "hold_seconds", "log_level"):
        assert f"{variable(name)}: " in str(refused.value)
    assert "PORT" not in str(refused.value)


def test_secrets_are_not_in_what_is_printed_nor_in_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = settings.load()
    printed = f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()}"
    assert "very-secret" not in printed
    assert TOKEN_SECRET not in printed
    with pytest.raises(NotReady) as refused:
        load_with(monkeypatch, database_url="mysql://ada:very-secret@127.0.0.1/rowlock")
    assert "very-secret" not in str(refused.value)


def test_a_secret_comes_from_a_file_and_a_variable_wins_over_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ROWLOCK_TOKEN_SECRET")
    monkeypatch.setenv(settings.SECRETS_DIR, str(tmp_path))
    (tmp_path / "rowlock_token_secret").write_text("f" * 32 + "\n")
    (tmp_path / "rowlock_database_url").write_text("postgresql://127.0.0.1/from_the_file")
    loaded = settings.load()
    assert loaded.token_secret.get_secret_value() == "f" * 32
    assert loaded.database_url.get_secret_value() == DATABASE_URL


def test_a_secrets_folder_that_is_not_there_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(settings.SECRETS_DIR, str(tmp_path / "elsewhere"))
    with pytest.raises(NotReady, match=r"^settings: ROWLOCK_SECRETS_DIR: .*elsewhere is not a folder$"):
        settings.load()


def test_settings_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_with(monkeypatch, hold_seconds=7)
    name = "hold_seconds"
    with pytest.raises(ValueError, match="frozen"):
        setattr(loaded, name, 8)
    assert loaded.hold_seconds == 7


def test_what_is_given_wins_over_a_variable_and_is_checked_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWLOCK_PORT", "1")
    assert settings.load(port=2).port == 2
    with pytest.raises(NotReady, match="ROWLOCK_PORT"):
        settings.load(port=0)


def test_variables_of_others_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("ROWLOCK_SOMETHING_ELSE", "x")
    assert settings.load().port == 3000


def test_the_table_in_the_readme_is_the_one_of_the_model() -> None:
    assert table_in_readme() == settings_table(), "run python -m dev.settings_table"
    assert all(f"`{variable(name)}`" in table_in_readme() for name in FIELDS)


def test_the_table_speaks_of_variables_and_not_of_python() -> None:
    assert f"`{settings.SECRETS_DIR}`" in settings_table()
    for python in ("`None`", "`()`", *(f"`{name}`" for name in FIELDS if "_" in name)):
        assert python not in settings_table()
