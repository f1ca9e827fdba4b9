"""Who else may read or write what certcast relies on.

    read_private, require_private    files with secrets that others wrote: a signing key, a password
    others_may_write                 files that decide which keys this host trusts, and who gets what
    require_own_dir                  the state, in which root must not be led astray
    require_no_link                  folders that only certcast makes

Check and read are of the same open file. Not looked at: who may change the folders above such a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from certcast.host import files
from certcast.report.errors import LocalFault, SecretExposed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read_private(path: Path, what: str, *, limit: int = 65536) -> bytes:
    """Return a file's content if only this user and root can read or change it; `what` names it.

    Raises SecretExposed; FileNotFoundError; LocalFault if it cannot be read, or has more
    than `limit` octets.
    """
    with _read(path, what):
        # A pipe must not keep us waiting for its writer. Links are followed: secrets managers work with them,
        # and what counts is who may read and change the file at their end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _require_private(path, what, os.fstat(descriptor), descriptor)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                body = file.read(limit + 1)
        finally:
            os.close(descriptor)
    if len(body) > limit:
        raise LocalFault(
            f"{path} cannot be {what}",
            expected=f"at most {limit} octets",
            kept="nothing was taken from it",
            next="name the right file in the configuration",
        )
    return body


def require_private(path: Path, what: str) -> None:
    """Raise SecretExposed if somebody else can read or change the file; for files that others open.

    Also FileNotFoundError, and LocalFault if it cannot be looked at.
    """
    with _read(path, what):
        _require_private(path, what, path.stat(), path)


@contextlib.contextmanager
def _read(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        error.filename = error.filename or str(path)
        with files.reported(f"read {what}", kept="nothing was changed", advice=_READING):
            raise


_READING = dict.fromkeys(
    (errno.EACCES, errno.EPERM), "run as root, or give the file to the user that certcast runs as"
)


def _require_private(path: Path, what: str, status: os.stat_result, file: int | Path) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        trouble, advice = f"{path} with {what} is not a file", "give it in a file: no pipe, device or folder"
    elif status.st_uid not in {0, os.geteuid()}:
        trouble = f"{path} with {what} belongs to somebody else, who can read and exchange it"
        advice = f"if it is the right one: `chown {_user(os.geteuid())} {_quoted(path)}`"
    elif mode & 0o077 and not (mode & 0o007 == 0 and _group_bits_are_ours(file)):
        trouble = f"others may read {what} in {path}"
        advice = f"`chmod 600 {_quoted(path)}`; if somebody else works on this host, exchange the secret too"
    else:
        return
    raise SecretExposed(
        trouble,
        expected=f"a file of mode 0600 or less, owner {' or '.join(sorted({'root', _user(os.geteuid())}))}",
        found=f"mode {mode:04o}, owner {_user(status.st_uid)}",
        kept="nothing was taken from it",
        next=advice,
    )


def _group_bits_are_ours(file: int | Path) -> bool:
    """Whether the group's bits in the mode only show an access control list (acl(5)) that names nobody else.

    systemd gives a service its credentials like this: mode 0440, root's, and an entry for the
    service's user (https://github.com/systemd/systemd/issues/29435).
    """
    import struct

    try:
        acl = os.getxattr(file, "system.posix_acl_access")
    except OSError:
        return False  # there is none: the bits are what they say
    # Linux, include/uapi/linux/posix_acl_xattr.h: a version, then tag, permissions and id of each entry.
    user, group, named_group = 0x02, 0x04, 0x08
    return all(
        permissions == 0
        for tag, permissions, number in struct.iter_unpack("<HHI", acl[4:])
        if tag in {group, named_group} or (tag == user and number not in {0, os.geteuid()})
    )


def others_may_write(status: os.stat_result) -> bool:
    """Whether a file may be changed by others than this user and root."""
    return bool(status.st_mode & 0o022) or status.st_uid not in {0, os.geteuid()}


def require_own_dir(path: Path) -> None:
    """Raise LocalFault if somebody else may write to the directory, or a link stands in it.

    A missing one is fine. Anyone who can write there can make certcast, as root, write elsewhere.
    """
    try:
        status = path.stat()
        with os.scandir(path) as entries:
            links = [entry.path for entry in entries if entry.is_symlink()]
    except OSError:
        return  # not there yet; or taking the lock, the next step, reports what is wrong
    if status.st_uid not in {0, os.geteuid()}:
        owner = _user(status.st_uid)
        found, advice = (
            f"it belongs to {owner}",
            f"run certcast as {owner} always, or choose another state_dir",
        )
    elif status.st_mode & 0o022:
        found, advice = f"mode {stat.S_IMODE(status.st_mode):04o}", f"`chmod go-w {_quoted(path)}`"
    elif links:
        found, advice = (
            "a link: " + ", ".join(links),
            "remove the link; to move the state, link state_dir itself",
        )
    else:
        return
    raise LocalFault(
        f"somebody else may change what certcast keeps in {path}",
        expected="a directory of this user or root that nobody else can write to, without links in it",
        found=found,
        kept="nothing was changed",
        next=advice,
    )


def require_no_link(*folders: Path) -> None:
    """Raise LocalFault if one of certcast's own folders is a link: certcast makes none."""
    for folder in folders:
        with files.reported(f"look at {folder}", kept="nothing was changed"):
            is_link = folder.is_symlink()
        if is_link:
            raise LocalFault(
                f"{folder} is a link",
                expected="a folder that certcast has made",
                found=f"it leads to {os.readlink(folder)}",  # noqa: PTH115  its text, to the letter
                kept="nothing was changed",
                next="remove the link; to move the state, link state_dir itself",
            )


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
