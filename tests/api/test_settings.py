"""Settings: described and bounded, secrets kept secret, all faults named at once, and their page in docs/."""

from pathlib import Path

import pytest

from dev.settings_table import PAGE, page
from service import settings
from service.errors import NotReady
from service.settings import Settings
from service.settings.sentinels import Sentinels, sentinels_of
from service.settings.stores import BROKER_NODES_MAX
from tests.stage.factories import TOKEN_SECRET

DATABASE_URL = "postgresql://ada:very-secret@127.0.0.1/rowlock"
FIELDS = Settings.model_fields
NUMBERS = [name for name, field in FIELDS.items() if field.annotation in {int, float}]


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the required variables are set."""
    for name in FIELDS:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.delenv(settings.SECRETS_DIR, raising=False)
    monkeypatch.setenv("ROWLOCK_DATABASE_URL", DATABASE_URL)
    monkeypatch.setenv("ROWLOCK_TOKEN_SECRET", TOKEN_SECRET)


def variable(name: str) -> str:
    """The variable of a field."""
    return f"ROWLOCK_{name.upper()}"


def load_with(monkeypatch: pytest.MonkeyPatch, **values: object) -> Settings:
    """The settings when these variables are set too."""
    for name, value in values.items():
        monkeypatch.setenv(variable(name), str(value))
    return settings.load()


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_described(name: str) -> None:
    description = FIELDS[name].description
    assert description
    assert description[0].isupper() or description[0] == "`"


def test_two_settings_are_required() -> None:
    assert {name for name, field in FIELDS.items() if field.is_required()} == {"database_url", "token_secret"}


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_least_and_a_greatest_value(name: str) -> None:
    for bound in ("ge", "le"):
        assert [rule for rule in FIELDS[name].metadata if hasattr(rule, bound)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "mysql://127.0.0.1/rowlock"),
        ("database_url", "postgresql+asyncpg://127.0.0.1/rowlock"),
        ("database_url", "rowlock"),
        ("redis_url", "sentinel://:secret@one:26379/seats"),
        ("redis_url", "redis+sentinel://:secret@one:26379"),
        ("redis_url", "redis+sentinel://:secret@one:26379/seats/first"),
        ("redis_url", "redis+sentinel://:secret@/seats"),
        ("redis_url", "redis+sentinel://:secret@one:26379,/seats"),
        ("redis_url", "redis+sentinel://:secret@one:65536/seats"),
        ("redis_url", "redis+sentinel://:secret@one:port/seats"),
        ("redis_url", "redis+sentinel://:secret@[::1/seats"),
        ("token_secret", "x" * 31),
        ("token_issuer", ""),
        ("token_audience", ""),
        ("host", ""),
        ("open_manager_sign_up", "perhaps"),
        ("log_level", "loud"),
        ("log_level", "INFO "),
    ],
)
def test_an_invalid_text_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(NotReady, match=f"^settings: {variable(name)}: ") as refused:
        load_with(monkeypatch, **{name: value})
    assert "secret@" not in str(refused.value)
    if name in {"database_url", "token_secret"}:
        assert value not in str(refused.value)


@pytest.mark.parametrize("url", ["postgres://127.0.0.1/rowlock", "postgresql://database.example:6432/rowlock"])
def test_both_schemes_of_postgresql_are_accepted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert load_with(monkeypatch, database_url=url).database_url.get_secret_value() == url


def test_nodes_of_rabbitmq_are_separated_by_semicolons(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_with(monkeypatch, broker_url="amqp://a:5672/shop; amqps://b/shop")
    assert loaded.broker_nodes == ("amqp://a:5672/shop", "amqps://b/shop")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("amqp://a;http://b", "the URL's scheme should be amqp or amqps"),
        ("amqp://a;", "the URL's scheme should be amqp or amqps"),
        (";".join(["amqp://a"] * (BROKER_NODES_MAX + 1)), "6 URLs are given, at most 5 are allowed"),
    ],
)
def test_bad_nodes_of_rabbitmq_are_refused(monkeypatch: pytest.MonkeyPatch, url: str, message: str) -> None:
    with pytest.raises(NotReady, match=f"^settings: ROWLOCK_BROKER_URL: .*{message}"):
        load_with(monkeypatch, broker_url=url)


@pytest.mark.parametrize(
    ("url", "sentinels"),
    [
        (
            "redis+sentinel://:p%40ss@one:26379,two:5000,three/seats/2",
            Sentinels((("one", 26379), ("two", 5000), ("three", 26379)), "seats", "redis://:p%40ss@sentinel/2", None),
        ),
        (
            "rediss+sentinel://shop:secret@[::1]:26379/seats?sentinel_password=a%26b&ssl_ca_certs=/ca",
            Sentinels((("::1", 26379),), "seats", "rediss://shop:secret@sentinel/0?ssl_ca_certs=%2Fca", "a&b"),
        ),
    ],
)
def test_a_url_of_redis_may_name_sentinels(monkeypatch: pytest.MonkeyPatch, url: str, sentinels: Sentinels) -> None:
    loaded = load_with(monkeypatch, redis_url=url).redis_url
    assert loaded
    assert sentinels_of(loaded.get_secret_value()) == sentinels


def test_a_url_of_one_redis_names_no_sentinels() -> None:
    assert sentinels_of("redis://:password@host:6379/0") is None


@pytest.mark.parametrize("given", ["::1", "[::1]"])
def test_an_ipv6_address_may_have_brackets(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    assert load_with(monkeypatch, host=given).host == "::1"


def test_all_invalid_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROWLOCK_DATABASE_URL")
    with pytest.raises(NotReady) as refused:
        load_with(monkeypatch, token_secret="short", hold_seconds=0, log_level="loud")
    for name in ("database_url", "token_secret", "hold_seconds", "log_level"):
        assert f"{variable(name)}: " in str(refused.value)
    assert "PORT" not in str(refused.value)


def test_secrets_are_neither_printed_nor_in_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = settings.load()
    printed = f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()}"
    assert "very-secret" not in printed
    assert TOKEN_SECRET not in printed
    with pytest.raises(NotReady) as refused:
        load_with(monkeypatch, database_url="mysql://ada:very-secret@127.0.0.1/rowlock")
    assert "very-secret" not in str(refused.value)


def test_a_file_gives_a_secret_and_a_variable_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ROWLOCK_TOKEN_SECRET")
    monkeypatch.setenv(settings.SECRETS_DIR, str(tmp_path))
    (tmp_path / "rowlock_token_secret").write_text("f" * 32 + "\n")
    (tmp_path / "rowlock_database_url").write_text("postgresql://127.0.0.1/from_the_file")
    loaded = settings.load()
    assert loaded.token_secret.get_secret_value() == "f" * 32
    assert loaded.database_url.get_secret_value() == DATABASE_URL


def test_a_missing_secrets_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(settings.SECRETS_DIR, str(tmp_path / "elsewhere"))
    with pytest.raises(NotReady, match=r"^settings: ROWLOCK_SECRETS_DIR: .*elsewhere is not a folder$"):
        settings.load()


def test_an_argument_wins_over_a_variable_and_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWLOCK_PORT", "1")
    assert settings.load(port=2).port == 2
    with pytest.raises(NotReady, match="ROWLOCK_PORT"):
        settings.load(port=0)


def test_unknown_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("ROWLOCK_SOMETHING_ELSE", "x")
    assert settings.load().port == 3000


def test_the_page_of_settings_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run python -m dev.settings_table"
    assert all(page().count(f"| `{variable(name)}` |") == 1 for name in FIELDS)


def test_the_page_shows_variables_and_no_python() -> None:
    assert f"`{settings.SECRETS_DIR}`" in page()
    for python in ("`None`", "`()`", *(f"`{name}`" for name in FIELDS if "_" in name)):
        assert python not in page()
