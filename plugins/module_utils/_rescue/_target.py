# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files inside a target, and commands run inside it. Private to this collection.

A target may belong to a compromised server, so its links are input, not truth. Every path here is walked one directory
at a time, below an open file descriptor of the one before, and a link is resolved as the target itself would: "/" is
the root of the target and ".." never leads above it. The root itself is the caller's and is trusted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import posixpath
import stat
import time
import typing as t

from .._errors import TargetError
from ._command import Result, Runner

RUN_DIR = "/run/lifeboat"
NAMESPACE = "target.ns"
# Says which directory is the root in that namespace, in one line.
NAMESPACE_ROOT = "target.ns.root"
# Written by whoever enters the namespace; when, tells that the job is alive.
NAMESPACE_USED = "target.ns.used"
JOURNAL = "journal.json"
# The same for what is built for a moment, to look.
LOOKING = "looking.json"

LABEL = "security.selinux"
LINKS = 40  # as many as the kernel follows
LARGEST = 64 * 1024 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# For a command where storage_mount made no namespace. $1 is the root, the rest the command. mount(8) would follow a
# link in the place of a mount point, out of the tree: only real directories are bound over.
_ENTER = """\
for d in dev proc sys run; do
if [ -d "$1/$d" ] && [ ! -L "$1/$d" ]; then mount --rbind "/$d" "$1/$d" || exit 125; fi
done
exec chroot "$@"
"""


class NotThere(TargetError):
    """The target has no such file."""

    code = "not_there"


# Reading ------------------------------------------------------------------------------------------------------------


def read(root: str, path: str, limit: int = LARGEST, cut: bool = False) -> bytes:
    """Content of a regular file of the target, links followed inside the target. With cut, its first limit bytes.

    Raise NotThere, or TargetError when it is no regular file, cannot be read or (without cut) has more bytes.
    """
    data = bytearray()
    with _regular(root, path) as opened:
        while len(data) <= limit:
            try:
                chunk = os.read(opened[0], min(limit + 1, 1 << 20))
            except OSError as exc:
                raise _failed("read", path, exc) from exc
            if not chunk:
                return bytes(data)
            data += chunk
    if cut:
        return bytes(data[:limit])
    raise TargetError(f"{path} in the target has more than {limit} bytes.")


def status(root: str, path: str, follow: bool = True) -> os.stat_result | None:
    """What lstat says of a path of the target (after its links, unless follow is False), or None where it is not."""
    try:
        with _place(root, path, follow) as (directory, name):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (NotThere, FileNotFoundError):
        return None


def names(root: str, path: str) -> list[str]:
    """Sorted names in a directory of the target; none where there is no such directory."""
    try:
        with _place(root, path) as (directory, name):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except (NotThere, FileNotFoundError, NotADirectoryError):
        return []
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def link(root: str, path: str) -> str | None:
    """Where a symbolic link of the target points, word for word, or None where the path is no link."""
    try:
        with _place(root, path, follow=False) as (directory, name):
            return os.readlink(name, dir_fd=directory)
    except (NotThere, OSError):
        return None


def resolve(root: str, path: str, missing: bool = False) -> str:
    """The path of the target ("/…") without links, "." and "..".

    All but the last part must be there, unless missing is True, as for a link that leads to nothing.
    """
    with contextlib.ExitStack() as stack:
        return "/" + "/".join(part for part in _walk(root, path, True, stack, missing)[1] if part != ".")


# Writing ------------------------------------------------------------------------------------------------------------


def replace(root: str, path: str, data: bytes, backup: bool = True) -> str | None:
    """Give a regular file of the target another content: all of it or nothing, whatever happens.

    Owner, mode and every extended attribute (SELinux label, ACL, capabilities) stay. With backup, the old content is
    kept beside it under the same protection. Return the path of that copy in the target, or None.
    A link is kept; what it points to is replaced. Other hard links of the file keep the old content.
    Raise NotThere, or TargetError when it is no regular file or cannot be written; then it is as before.
    """
    copy = None
    with _regular(root, path) as (old, directory, name):
        try:
            if backup:
                copy = _back_up(directory, name, old)
            _write(directory, name, data, like=old)
        except OSError as exc:
            if copy:
                with contextlib.suppress(OSError):
                    os.unlink(copy, dir_fd=directory)
            raise _failed("write", path, exc) from exc
    return os.path.join(os.path.dirname(resolve(root, path)), copy) if copy else None


def create(root: str, path: str, data: bytes, mode: int = 0o600, owner: tuple[int, int] = (0, 0)) -> None:
    """Make a regular file of the target, or give an existing one this content, mode and owner (uid, gid).

    The SELinux label of a new file is that of its directory, as the kernel would do. A link is not followed: where
    there is one, or anything else than a regular file, raise TargetError.
    """
    with _place(root, path, follow=False) as (directory, name):
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise TargetError(f"{path} in the target is {_kind(found.st_mode)}, not a regular file.")
        try:
            _write(directory, name, data, mode=mode, owner=owner)
        except OSError as exc:
            raise _failed("write", path, exc) from exc


def make_directory(root: str, path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> bool:
    """Make one directory of the target with mode and owner (uid, gid). Return False where it was there already."""
    with _place(root, path) as (directory, name):
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                return False
            raise TargetError(f"{path} in the target is not a directory.") from None
        except OSError as exc:
            raise _failed("make", path, exc) from exc
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            _label_as(directory, fd)
        finally:
            os.close(fd)
        return True


def make_link(root: str, path: str, points_to: str) -> None:
    """Make path of the target a symbolic link, in the place of whatever link was there.

    Raise TargetError where something else than a link is there.
    """
    with _place(root, path, follow=False) as (directory, name):
        temporary = _temporary(directory, name)
        try:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                    raise TargetError(f"{path} in the target is not a symbolic link.")
            os.symlink(points_to, temporary, dir_fd=directory)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
        except OSError as exc:
            raise _failed("write", path, exc) from exc


def remove(root: str, path: str) -> bool:
    """Remove a file or a link (the link itself) of the target. Return False where there was none."""
    try:
        with _place(root, path, follow=False) as (directory, name):
            os.unlink(name, dir_fd=directory)
            os.fsync(directory)
    except (NotThere, FileNotFoundError):
        return False
    except OSError as exc:
        raise _failed("remove", path, exc) from exc
    return True


def remove_directory(root: str, path: str) -> None:
    """Remove an empty directory of the target."""
    with _place(root, path, follow=False) as (directory, name):
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as exc:
            raise _failed("remove", path, exc) from exc


@contextlib.contextmanager
def opened(root: str, path: str, flags: int = os.O_RDONLY) -> t.Iterator[int]:
    """Descriptor of a file or directory of the target, links followed inside it, for what is done by descriptor."""
    with _place(root, resolve(root, path)) as (directory, name):
        try:
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
        except OSError as exc:
            raise _failed("open", path, exc) from exc
    try:
        yield fd
    finally:
        os.close(fd)


def selinux_type(root: str, path: str) -> str | None:
    """The SELinux type of a file or directory of the target, or None where it has no label."""
    with opened(root, path) as descriptor:
        label = os.getxattr(descriptor, LABEL).rstrip(b"\0").split(b":") if LABEL in os.listxattr(descriptor) else []
    return label[2].decode("ascii", "replace") if len(label) > 3 else None


def set_selinux_type(root: str, path: str, wanted: str) -> None:
    """Give a file or directory another SELinux type; user, role and level stay. Nothing where it has no label."""
    with opened(root, path) as descriptor:
        # Without SELinux there is no such attribute.
        label = os.getxattr(descriptor, LABEL).split(b":") if LABEL in os.listxattr(descriptor) else []
        if len(label) > 3:
            label[2] = wanted.encode()
            os.setxattr(descriptor, LABEL, b":".join(label))


# Running ------------------------------------------------------------------------------------------------------------


def inside(run: Runner, root: str, argv: t.Sequence[str], *, stdin: str | None = None, check: bool = True,
           env: t.Mapping[str, str] | None = None, timeout: float | None = None, run_dir: str = RUN_DIR) -> Result:
    """Run a command with root as its "/". The options are those of the runner.

    With root "/" it is run as it is. Else it is run in the mount namespace that storage_mount made for this root, or,
    where there is none, in a mount namespace of its own with /dev, /proc, /sys and /run of the rescue system. Nothing
    of either is ever seen in the rescue system's mount table, or left behind.
    """
    root = os.path.realpath(root)
    if root == "/":
        return run(list(argv), stdin=stdin, check=check, env=env, timeout=timeout)
    namespace = namespace_of(root, run_dir)
    if namespace:
        argv = ["nsenter", f"--mount={namespace}", "--", *argv]
    else:
        argv = ["unshare", "--mount", "--propagation", "slave", "--", "/bin/sh", "-c", _ENTER, "sh", root, *argv]
    return run(argv, stdin=stdin, check=check, env=env, timeout=timeout)


def namespace_of(root: str, run_dir: str = RUN_DIR) -> str | None:
    """File of the mount namespace that storage_mount made for root, or None."""
    path = os.path.join(run_dir, NAMESPACE)
    try:
        # The file is made before the namespace is bound over it.
        if os.stat(path).st_dev != os.stat("/proc/self/ns/mnt").st_dev:
            return None
        with open(os.path.join(run_dir, JOURNAL), "rb") as file:
            return path if json.load(file)["path"] == root else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# Walking ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _place(root: str, path: str, follow: bool = True) -> t.Iterator[tuple[int, str]]:
    """Descriptor of the directory that really holds path, and the name in it (which need not exist; "." for root)."""
    with contextlib.ExitStack() as stack:
        directory, way = _walk(root, path, follow, stack)
        yield directory, way[-1]


def _walk(root: str, path: str, follow: bool, stack: contextlib.ExitStack,
          missing: bool = False) -> tuple[int, list[str]]:
    """Descriptor of the directory that holds path, to be closed by stack, and the names from the root to path."""
    if "\0" in path:
        raise TargetError(f"{path!r} is no path.")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    way: list[tuple[str, int]] = []  # the directories that we are in, the root first
    todo = path.split("/")[::-1]
    links = 0
    try:
        way.append(("/", os.open(root, flags)))
        stack.callback(os.close, way[-1][1])
        while todo:
            name, here = todo.pop(), way[-1][1]
            if name in ("", "."):
                continue
            if name == "..":
                del way[max(1, len(way) - 1):]
                continue
            last = all(part in ("", ".") for part in todo)
            points_to = _points_to(here, name) if follow or not last else None
            if points_to is not None:
                links += 1
                if links > LINKS:
                    raise TargetError(f"{path} in the target leads through more than {LINKS} symbolic links.")
                if points_to.startswith("/"):
                    del way[1:]
                todo += points_to.split("/")[::-1]
            elif last:
                return here, [each for each, dummy in way[1:]] + [name]
            else:
                try:
                    way.append((name, os.open(name, flags | os.O_NOFOLLOW, dir_fd=here)))
                except FileNotFoundError:
                    if not missing:
                        raise
                    rest = posixpath.normpath("/".join(["", *(each for each, dummy in way[1:]), name, *todo[::-1]]))
                    return here, rest.strip("/").split("/")
                stack.callback(os.close, way[-1][1])
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NotThere(f"There is no {path} in the target.") from exc
    except OSError as exc:
        raise _failed("reach", path, exc) from exc
    return way[-1][1], [name for name, dummy in way[1:]] + ["."]


def _points_to(directory: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as exc:
        if exc.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


@contextlib.contextmanager
def _regular(root: str, path: str) -> t.Iterator[tuple[int, int, str]]:
    """Open a regular file for reading. Give its descriptor, the one of its directory, and its name there.

    A device or a FIFO is not even opened for a moment that could block.
    """
    with _place(root, path) as (directory, name):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=directory)
        except FileNotFoundError:
            raise NotThere(f"The target has no {path}.") from None
        except OSError as exc:
            raise _failed("read", path, exc) from exc
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise TargetError(f"{path} in the target is {_kind(mode)}, not a regular file.")
            yield fd, directory, name
        finally:
            os.close(fd)


def _kind(mode: int) -> str:
    for test, kind in ((stat.S_ISDIR, "a directory"), (stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a FIFO"),
                       (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device")):
        if test(mode):
            return kind
    return "something"


def _failed(verb: str, path: str, exc: OSError) -> TargetError:
    todo = None
    if exc.errno == errno.EROFS:
        todo = "It is mounted read-only: mount it with mode=rw."
    elif exc.errno == errno.EPERM:
        todo = "It or its directory may be marked immutable: see lsattr."
    return TargetError(f"Cannot {verb} {path} in the target: {exc.strerror}.", todo=todo)


# Files made whole -----------------------------------------------------------------------------------------------------


def _write(directory: int, name: str, data: bytes, like: int | None = None, mode: int = 0o600,
           owner: tuple[int, int] = (0, 0)) -> None:
    """Put a file in the place of name: written elsewhere, on the disk, and only then given the name."""
    temporary = _temporary(directory, name)
    fd = os.open(temporary, _NEW, 0o600, dir_fd=directory)
    try:
        _fill(fd, data)
        if like is None:
            _protect(fd, owner, mode)
            _label_as(directory, fd)
        else:
            _protect_like(like, fd)
        os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(fd)
    os.fsync(directory)


def _temporary(directory: int, name: str) -> str:
    """The name to write under, and nothing there. Always the same one, so that one killed half-way leaves no litter."""
    temporary = f".{name}.lifeboat-new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)
    return temporary


def _back_up(directory: int, name: str, old: int) -> str:
    """Copy the open file old beside it. Return the name of the copy."""
    stem = f"{name}.lifeboat-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    for count in range(1000):
        copy = f"{stem}-{count}" if count else stem
        try:
            fd = os.open(copy, _NEW, 0o600, dir_fd=directory)
            break
        except FileExistsError:
            continue
    else:
        raise FileExistsError(errno.EEXIST, "too many backups", stem)
    try:
        os.lseek(old, 0, os.SEEK_SET)
        while True:
            chunk = os.read(old, 1 << 20)
            if not chunk:
                break
            _fill(fd, chunk)
        _protect_like(old, fd)
        times = os.fstat(old)
        os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(copy, dir_fd=directory)
        raise
    finally:
        os.close(fd)
    return copy


def _fill(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def _protect(fd: int, owner: tuple[int, int], mode: int) -> None:
    """Owner first: a change of owner clears set-user-ID bits and capabilities."""
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != tuple(owner):
        os.fchown(fd, *owner)
    if stat.S_IMODE(now.st_mode) != mode:
        os.fchmod(fd, mode)


def _protect_like(old: int, new: int) -> None:
    was = os.fstat(old)
    _protect(new, (was.st_uid, was.st_gid), stat.S_IMODE(was.st_mode))
    wanted, present = _attributes(old), _attributes(new)
    for name, value in wanted.items():
        if present.get(name) != value:
            os.setxattr(new, name, value)
    for name in set(present) - set(wanted):
        os.removexattr(new, name)


def _attributes(fd: int) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.ENOSYS):  # vfat has none
            return {}
        raise


def _label_as(directory: int, fd: int) -> None:
    """Give a new file the SELinux label of its directory. The kernel does it only where SELinux runs."""
    label = _attributes(directory).get(LABEL)
    if label is not None:
        os.setxattr(fd, LABEL, label)
