"""A file system of a server's own, in memory, which a fault makes full. Only root on Linux can mount one."""

import ctypes
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dev.processes import Account

CLONE_NEWNS = 0x00020000
SIZE = "8g"
"""More than a server ever needs: memory is taken only for the files that exist."""
TRIES_MAX = 50


class CannotMount(Exception):
    """This account or system mounts no file system. The message is for people."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Mounted on `folder`, unless `why_not` says why it could not be: then the folder is an ordinary one."""

    folder: Path
    why_not: str = ""

    def fill(self) -> None:
        """Limits the size to the space in use. Each further block fails with ENOSPC. Raises CannotMount."""
        if self.why_not:
            raise CannotMount(self.why_not)
        for _ in range(TRIES_MAX):
            now = os.statvfs(self.folder)
            # Refused where a server has written since, so that more is in use than this.
            if not _mount("-o", f"remount,size={(now.f_blocks - now.f_bfree) * now.f_frsize}", str(self.folder)):
                return
        raise CannotMount(f"{self.folder} was written faster than it could be made full")

    def free(self) -> None:
        """There is space again."""
        if not self.why_not:
            _mount("-o", f"remount,size={SIZE}", str(self.folder))

    def unmount(self) -> None:
        """Removes it with its files, as soon as no process uses them any more."""
        if not self.why_not:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)  # noqa: S603, S607 - our own command


def mounted(folder: Path, account: Account) -> Disk:
    """Makes the folder, which the account owns, with a file system of its own where that is possible."""
    folder.mkdir(mode=0o700)
    owner = "" if account.uid is None else f",uid={account.uid},gid={account.gid}"
    why_not = _mount("-t", "tmpfs", "-o", f"size={SIZE},mode=700{owner}", "rowlock", str(folder))
    account.take(folder)
    return Disk(folder, why_not)


def keep_mounts_private() -> None:
    """Mounts of this process exist from now on only for it and its children, and end with them, however they end.

    It must have one thread only. Without root it changes nothing, and `mounted` says why it can't mount.
    """
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
        _mount("--make-rprivate", "/")


def _mount(*arguments: str) -> str:
    """Why `mount` failed; empty where it did not."""
    try:
        result = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)  # noqa: S603, S607
    except OSError as error:
        return str(error)
    return "" if result.returncode == 0 else result.stderr.strip() or "mount failed"
