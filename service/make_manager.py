"""`python -m service.make_manager EMAIL [NAME]`: gives the account the role MANAGER, or makes one.

A new account's password is the first line of the standard input.
"""

import argparse
import asyncio
import getpass
import sys

from service import accounts, settings
from service.accounts import NewAccount
from service.database import create_engine, ping
from service.errors import AddressInUse, NotReady, Unavailable
from service.tokens import Role

PASSWORD_LENGTH_MIN = 12


async def make_manager(email: str, name: str) -> str:
    """What was done, as a sentence. Raises NotReady, Unavailable."""
    loaded = settings.load()
    engine = create_engine(loaded, "rowlock-make-manager")
    try:
        await ping(engine)
        if await accounts.make_manager(engine, email):
            return f"{email} is a manager from the next sign-in on."
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        if len(password) < PASSWORD_LENGTH_MIN:
            raise NotReady(f"the password must have at least {PASSWORD_LENGTH_MIN} characters")
        passwords = accounts.Passwords(loaded.password_queue_max)
        await accounts.sign_up(engine, passwords, NewAccount(email, password, name, Role.MANAGER))
        return f"{email} is a new manager."
    finally:
        await engine.dispose()


def main() -> None:
    """Exits with 1 and a sentence where it can't be done."""
    parser = argparse.ArgumentParser(prog="python -m service.make_manager", description=__doc__)
    parser.add_argument("email")
    parser.add_argument("name", nargs="?", default="Manager")
    arguments = parser.parse_args()
    try:
        done = asyncio.run(make_manager(arguments.email, arguments.name))
    except (NotReady, Unavailable, AddressInUse) as error:
        sys.exit(f"make_manager: {error or type(error).__name__}")
    sys.stdout.write(done + "\n")


if __name__ == "__main__":
    main()
