"""`python -m service.make_manager EMAIL [NAME]`: gives an account the role MANAGER, or creates one with that role.

The password of a new account is read from the first line of the standard input.
"""

import argparse
import asyncio
import getpass
import sys

from email_validator import EmailNotValidError, validate_email

from service import settings
from service.accounts import accounts
from service.accounts.accounts import NewAccount
from service.accounts.passwords import PASSWORD_BYTES_MAX, Passwords
from service.accounts.tokens import Role
from service.database import create_engine, ping
from service.errors import AddressInUse, NotReady, Unavailable

PASSWORD_LENGTH_MIN = 12


async def make_manager(email: str, name: str) -> str:
    """Returns a sentence about the change. Raises NotReady, Unavailable, AddressInUse."""
    loaded = settings.load()
    engine = create_engine(loaded, "rowlock-make-manager")
    try:
        await ping(engine)
        if await accounts.make_manager(engine, email):
            return f"{email} is a manager from the next sign-in on."
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        _check(email, password)
        passwords = Passwords(loaded.password_queue_max)
        await accounts.sign_up(engine, passwords, NewAccount(email, password, name, Role.MANAGER))
        return f"{email} is a new manager."
    finally:
        await engine.dispose()


def _check(email: str, password: str) -> None:
    """Checks the same as a sign-up, with a longer password. Raises NotReady."""
    try:
        validate_email(email, check_deliverability=False)
    except EmailNotValidError as error:
        raise NotReady(f"{email}: {error}") from None
    if len(password) < PASSWORD_LENGTH_MIN:
        raise NotReady(f"the password must have at least {PASSWORD_LENGTH_MIN} characters")
    if len(password.encode()) > PASSWORD_BYTES_MAX:
        raise NotReady(f"the password must have at most {PASSWORD_BYTES_MAX} bytes")


def main() -> None:
    """Exits with 1 and a sentence where the account can't be changed or created."""
    parser = argparse.ArgumentParser(prog="python -m service.make_manager", description=__doc__)
    parser.add_argument("email")
    parser.add_argument("name", nargs="?", default="Manager")
    arguments = parser.parse_args()
    try:
        done = asyncio.run(make_manager(arguments.email, arguments.name))
    except NotReady as error:
        sys.exit(f"make_manager: {error}")
    except (Unavailable, AddressInUse) as error:
        # The docstring of these errors is a sentence for users.
        sys.exit(f"make_manager: {type(error).__doc__} {error.__cause__ or ''}".rstrip())
    sys.stdout.write(done + "\n")


if __name__ == "__main__":
    main()
