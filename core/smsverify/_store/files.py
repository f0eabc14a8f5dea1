"""The file of a SQLite store: it is made for its owner alone, trusted if no other user can write it, and must
stay the same file while it is used.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from smsverify.errors import StoreError
from smsverify.text import log_of, printable

log = log_of(__name__)

# SQLite's locks and its WAL need memory that all processes share, and files that are what they seem to be.
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "ocfs2", "gfs2"}
    | {"glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"}
    | {"fuse.ceph", "fuse.cephfs", "fuse.juicefs", "fuse.blobfuse", "fuse.blobfuse2", "fuse.mount-s3"}
    | {"fuse.goofys", "fuse.mfs", "davfs", "fuse.davfs2"}
)
# Directories that a virtual machine shares with its host. `virtiofs` and `9p` are left out: by these, Docker
# Desktop and WSL give a directory to the containers of one virtual machine.
_OF_A_HOST = frozenset({"vboxsf", "vmhgfs", "fuse.vmhgfs-fuse", "prl_fs"})
_OF_A_CONTAINER = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs"})
_OCTAL = re.compile(r"\\([0-7]{3})")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

FileId = tuple[int, int]


def prepare(path: Path) -> None:
    """Makes the file where it is missing, and makes sure that no other user can read or write it.

    Raises:
        StoreError: it cannot be trusted, or cannot be made.
    """
    try:
        _make_directory(path.parent)
        _check_place(path.parent)
        if not os.path.lexists(path):
            _make(path)
        for one in (path, *beside(path), path.with_name(path.name + "-journal")):
            _make_private(one, is_main=one == path)
    except OSError as error:
        raise StoreError(
            f"the store's file {printable(str(path))} cannot be used: {error.strerror or error}"
        ) from error


def identify(path: Path) -> FileId | None:
    """Which file a path leads to; `None` where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def size_of(path: Path) -> int:
    """The size in bytes; 0 where there is no such file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def beside(path: Path) -> tuple[Path, Path]:
    """What SQLite keeps beside a file in use: what is not in it yet, and memory that its users share."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def mode_of(path: Path) -> str | None:
    """The file's permissions, such as `0600`; `None` where there is no file."""
    try:
        return f"{stat.S_IMODE(os.stat(path).st_mode):04o}"
    except OSError:
        return None


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The kind of file system that a path is on; `None` where the system does not say (it is not Linux)."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
        real = path.resolve()
    except OSError:
        return None
    best, kind = -1, None
    for line in filter(None, lines):
        # Mount point, then optional fields up to a dash, then the kind. A space in the path is written \\040.
        before, _, after = line.partition(" - ")
        point = Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4]))
        if (real == point or point in real.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind


# ------------------------------------------------------------------ making


def _make_directory(directory: Path) -> None:
    """Makes each missing directory for its owner alone; `mkdir(parents=True)` sets the mode of the last."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)


def _make(path: Path) -> None:
    try:
        made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return  # by another process, just now
    try:
        os.fchmod(made, 0o600)  # the umask may have left less
    finally:
        os.close(made)


# ------------------------------------------------------------------ trust


def _check_place(directory: Path) -> None:
    kind = file_system_of(directory)
    if kind in _NETWORK_FILE_SYSTEMS | _OF_A_HOST:
        where = "on a network file system" if kind in _NETWORK_FILE_SYSTEMS else "shared by virtual machines"
        raise StoreError(
            f"the store's directory {printable(str(directory))} is {where} ({kind}), where SQLite can lose "
            "data. Use PostgreSQL (store_url)"
        )
    if kind in _OF_A_CONTAINER:
        log.warning(
            "The store in %s is on the container's own layer (%s). Other containers do not see it, and it is "
            "lost with the container, with all records of purchases. Keep it on a volume, or use PostgreSQL",
            printable(str(directory)),
            kind,
        )
    mode = os.stat(directory).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise StoreError(
            f"every user may replace files in the store's directory {printable(str(directory))}. Remove that "
            "permission (chmod o-w), or keep the store in a directory of its own (store_url)"
        )


def _make_private(path: Path, *, is_main: bool) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    name = printable(str(path))
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"the store {name} is not a file")
    if is_main and found.st_nlink > 1:
        raise StoreError(
            f"the store's file {name} has a second name (a hard link), and SQLite loses data that is written "
            "under two names. Remove one of them"
        )
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid():
        if mode & _OTHERS:
            os.chmod(path, mode & ~_OTHERS)
            log.warning(
                "Other users could open the store's file %s (mode %04o); now only its owner can", name, mode
            )
    elif found.st_uid != 0:
        raise StoreError(
            f"the store's file {name} belongs to another user (uid {found.st_uid}), who could change its "
            f"records. Run this as that user, or make the file yours (chown {os.geteuid()}). To share a "
            "store among several users, use PostgreSQL"
        )
    elif mode & stat.S_IRWXO:
        raise StoreError(
            f"the store's file {name} belongs to root, and every user may use it (mode {mode:04o}). Remove "
            "that permission (chmod o-rwx)"
        )
