"""A sandbox like bubblewrap's, by Python's own means: for machines without bubblewrap.

Run as a program of its own, ``python -I -S …/namespaces.py WORDS… -- COMMAND…``. It understands
those of bubblewrap's words that :mod:`.sandbox` uses, and does the same: namespaces of its own for
mounts, processes and IPC (and for users, unless it is root's), a root made of what is to be seen,
no way to more rights, and an end of all of it with its first process.

Needs only the standard library, and Linux 5.12. Nothing here goes back: what fails, ends it.
"""

import contextlib
import ctypes
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWIPC, _NEWUSER, _NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_SLAVE = 2, 4, 8, 0x1000, 0x4000, 0x80000
_RDONLY, _NOSUID, _NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE, _MNT_DETACH = -100, 0x8000, 2
_PDEATHSIG, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT = 1, 24, 38, 47
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "ppc64le": 203, "s390x": 217}
_CAPABILITIES = {"CAP_SYS_ADMIN": 21}
_HIGHEST_CAPABILITY = 63
_ARGUMENTS = {
    "--die-with-parent": 0, "--unshare-pid": 0, "--unshare-ipc": 0, "--cap-drop": 1, "--dir": 1,
    "--tmpfs": 1, "--proc": 1, "--remount-ro": 1, "--chdir": 1, "--symlink": 2, "--bind": 2,
    "--bind-try": 2, "--ro-bind": 2, "--dev-bind": 2,
}  # fmt: skip
_OLD, _NEW = "/oldroot", "/newroot"


class _Attributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user"))


def main(words: list[str]) -> int:
    """Run the command in a sandbox; its exit code, or 128 and the number of its signal."""
    options, command = _parse(words)
    _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    options = [_resolved(*option) for option in options]
    own_users = _unshare()
    alive, mine = os.pipe()
    child = os.fork()
    if child == 0:
        _guarded(lambda: _inside(options, command, own_users, alive, mine))
    os.close(alive)
    return _code(os.waitpid(child, 0)[1])


def _parse(words: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    found: list[tuple[str, ...]] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            return found, list(rest)
        if word not in _ARGUMENTS:
            raise SystemExit(f"namespaces: unknown word {word!r}")
        found.append((word, *(next(rest) for _ in range(_ARGUMENTS[word]))))
    raise SystemExit("namespaces: there is no command")


def _resolved(word: str, *given: str) -> tuple[str, ...]:
    """Replace a path to be bound by one without links: they would lead elsewhere later."""
    if "bind" in word:
        return (word, os.path.realpath(given[0]), *given[1:])
    return (word, *given)


def _unshare() -> bool:
    """Make the namespaces; whether one of users was needed."""
    spaces = _NEWNS | _NEWPID | _NEWIPC
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            _call("unshare", spaces)
            return False
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", spaces | _NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1\n")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1\n")
    return True


def _inside(
    options: list[tuple[str, ...]], command: list[str], own_users: bool, alive: int, mine: int
) -> int:
    """The first process in there: makes the root, starts the command, and ends with it."""
    os.close(mine)
    _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.set_blocking(alive, False)
    with contextlib.suppress(BlockingIOError):
        os.read(alive, 1)
        return 1  # the parent was gone before we could hear of its end
    _make_root(options)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the first process it is deaf to it then
    main_process = os.fork()
    if main_process == 0:
        _guarded(lambda: _become(options, command, own_users))
    while True:
        ended, status = os.wait()
        if ended == main_process:
            return _code(status)


def _become(options: list[tuple[str, ...]], command: list[str], own_users: bool) -> NoReturn:
    for word, *given in options:
        if word == "--chdir":
            os.chdir(given[0])
    dropped = [_CAPABILITIES[given[0]] for word, *given in options if word == "--cap-drop"]
    for number in range(_HIGHEST_CAPABILITY + 1) if own_users else dropped:
        with contextlib.suppress(OSError):  # there are fewer
            _call("prctl", _CAPBSET_DROP, number, 0, 0, 0)
    _call("prctl", _CAP_AMBIENT, 4, 0, 0, 0)
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606 - that is what it is for


# --- the root ---


def _make_root(options: list[tuple[str, ...]]) -> None:
    _mount(None, "/", None, _MS_SLAVE | _MS_REC)
    # Any directory will do; it is hidden from us alone, and only while the root is made.
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")  # noqa: S108
    for name in (_OLD, _NEW):
        os.mkdir(f"/tmp{name}", 0o755)  # noqa: PTH102, S108
    _pivot("/tmp", f"/tmp{_OLD}")  # noqa: S108
    os.chdir("/")
    _mount(_NEW, _NEW, None, _MS_BIND | _MS_REC)
    os.umask(0o022)
    for option in options:
        _step(*option)
    _call("umount2", _OLD.encode(), _MNT_DETACH)
    before = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chdir(_NEW)
    _pivot(".", ".")
    os.fchdir(before)
    _call("umount2", b".", _MNT_DETACH)
    os.close(before)
    os.chdir("/")


def _step(word: str, *given: str) -> None:
    target = f"{_NEW}{given[-1]}" if given else ""
    if word == "--dir":
        os.makedirs(target, 0o755, exist_ok=True)  # noqa: PTH103
    elif word == "--symlink":
        os.symlink(given[0], target)  # noqa: PTH211
    elif word == "--tmpfs":
        os.makedirs(target, 0o755, exist_ok=True)  # noqa: PTH103
        _mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    elif word == "--proc":
        os.makedirs(target, 0o755, exist_ok=True)  # noqa: PTH103
        _mount("proc", target, "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    elif word == "--remount-ro":
        _set(target.rstrip("/"), _RDONLY, recursive=False)
    elif "bind" in word:
        _bind(word, f"{_OLD}{given[0]}", target)


def _bind(word: str, source: str, target: str) -> None:
    try:
        is_folder = stat.S_ISDIR(os.stat(source).st_mode)  # noqa: PTH116
    except OSError:
        if word == "--bind-try":
            return
        raise
    if is_folder:
        os.makedirs(target, 0o755, exist_ok=True)  # noqa: PTH103
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o444))
    _mount(source, target, None, _MS_BIND | _MS_REC)
    flags = _NOSUID | (0 if word == "--dev-bind" else _NODEV)
    _set(target, flags | (_RDONLY if word == "--ro-bind" else 0), recursive=True)


# --- the system ---


def _call(name: str, *given: object) -> None:
    if getattr(_LIBC, name)(*given) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind)]
    try:
        _call("mount", *texts, ctypes.c_ulong(flags), data.encode() or None)
    except OSError as e:
        raise OSError(e.errno, f"{e.strerror} ({target})") from None


def _pivot(new: str, old: str) -> None:
    number = _SYS_PIVOT_ROOT.get(os.uname().machine, 41)
    _call("syscall", ctypes.c_long(number), new.encode(), old.encode())


def _set(target: str, flags: int, recursive: bool) -> None:
    wanted = _Attributes(set=flags)
    _call(
        "syscall", ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_int(_AT_FDCWD), target.encode(),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0), ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )  # fmt: skip


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        print(f"namespaces: {e.strerror}", file=sys.stderr, flush=True)
        os._exit(1)


def _guarded(run) -> NoReturn:  # type: ignore[no-untyped-def]
    """Run a part of the program in a process of its own, which ends with it."""
    with _explained():
        os._exit(run())
    os._exit(1)


if __name__ == "__main__":
    with _explained():
        code = main(sys.argv[1:])
    sys.exit(code)
