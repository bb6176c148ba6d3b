"""A check that URLs in settings share."""

from collections.abc import Callable

from pydantic import SecretStr


def with_scheme(*schemes: str) -> Callable[[SecretStr | None], SecretStr | None]:
    """A check of a URL that does not repeat the URL when it fails, because it may contain a password."""

    def checked(value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value().partition("://")[0] not in schemes:
            raise ValueError(f"the URL's scheme should be {' or '.join(schemes)}")
        return value

    return checked
