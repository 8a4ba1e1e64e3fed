"""Makes a clone: the last commit of what was asked for, its files, and where it came from."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dulwich.errors import GitProtocolError
from dulwich.index import Index, build_index_from_tree
from dulwich.objects import S_ISGITLINK, Blob, Commit, Tag
from dulwich.repo import Repo

from kaos_hub.schemas import Repository
from kaos_hub.transport.hosts import Wrong
from kaos_hub.util.quantities import show_memory
from kaos_hub.workload.git.wire import Server

_HEAD, _BRANCH, _TAG = b"HEAD", b"refs/heads/", b"refs/tags/"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT = re.compile(r"[0-9a-f]{7,63}")
_POINTER = b"version https://git-lfs.github.com/spec/"
_NAMED = 8


class NoSuchRef(Wrong):
    """The repository has no such branch, tag or commit."""


@dataclass
class Made:
    """A clone that was made."""

    commit: str = ""
    """Empty: nothing was ever committed there."""
    branch: str = ""
    """The branch that it is on; empty if on none."""
    whole: bool = False
    """True if all of the history was fetched."""
    files: int = 0
    submodules: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    """Files of which only a pointer is kept in git (LFS)."""


def make(
    folder: Path, repository: Repository, server: Server, size: int, tell: Callable[[str], object]
) -> Made:
    """Clone into a folder that is there and empty.

    Args:
        folder: where; on an error it holds half of something.
        repository: which one.
        server: where it comes from.
        size: bytes that its files may have.
        tell: told what is being done.

    Raises:
        Wrong, Later, LoginWanted: it cannot be had.
        OSError: it cannot be written.
        Exception: what came makes no sense, in one of dulwich's many words for that.
    """
    repo = Repo.init(str(folder))
    try:
        made = Made()
        chosen = _fetch(repo, repository, server, made)
        if chosen is None:
            _configure(repo, repository, "")
            return made
        commit = _commit(repo, chosen.sha, repository)
        made.commit, made.branch = commit.id.decode(), chosen.branch
        _point(repo, chosen, commit.id)
        _configure(repo, repository, chosen.branch)
        tell("writing its files")
        _check_out(repo, commit, size, made)
        return made
    finally:
        repo.close()


@dataclass
class _Chosen:
    """The part of a repository that is wanted."""

    name: bytes
    """Of a branch or tag, in full; empty if it is a commit."""
    sha: bytes
    is_default: bool = False

    @property
    def branch(self) -> str:
        is_one = self.name.startswith(_BRANCH)
        return self.name.removeprefix(_BRANCH).decode("utf-8", "replace") if is_one else ""


def _fetch(repo: Repo, repository: Repository, server: Server, made: Made) -> _Chosen | None:
    """Fetch what is wanted, without the history if the server can; None: it is empty."""
    try:
        return _fetch_with(repo, repository, server, 1)
    except GitProtocolError:
        # Some cannot leave the history out, and some give commits only as part of that.
        made.whole = True
        return _fetch_with(repo, repository, server, None)


def _fetch_with(
    repo: Repo, repository: Repository, server: Server, depth: int | None
) -> _Chosen | None:
    chosen: list[_Chosen] = []

    def wants(refs: dict[bytes, bytes], depth: int | None = None) -> list[bytes]:
        found = _choose(refs, repository)
        if found is None:
            return []
        chosen.append(found)
        if not found.name and depth is None:
            return list(set(refs.values()))
        return [found.sha]

    ref = repository.ref
    prefixes = [_HEAD]
    if ref is not None:
        prefixes = [_BRANCH + ref.encode(), _TAG + ref.encode(), ref.encode()]
        if depth is None and _COMMIT.fullmatch(ref):
            prefixes = [_BRANCH, _TAG]
    anything: Any = wants
    result = server.fetch("", repo, anything, depth=depth, ref_prefix=prefixes)
    if not chosen:
        if ref is None:
            return None
        raise NoSuchRef(_unknown(repository, server))
    default = result.symrefs.get(_HEAD)  # type: ignore[call-overload]
    if ref is None and default is not None:
        return _Chosen(default, chosen[0].sha, is_default=True)
    return chosen[0]


def _choose(refs: dict[bytes, bytes], repository: Repository) -> _Chosen | None:
    ref = repository.ref
    if ref is None:
        head = refs.get(_HEAD)
        return None if head is None else _Chosen(b"", head)
    for name in (_BRANCH + ref.encode(), _TAG + ref.encode(), ref.encode()):
        if name in refs and name != _HEAD:
            return _Chosen(name, refs[name])
    return _Chosen(b"", ref.encode()) if _COMMIT.fullmatch(ref) else None


def _unknown(repository: Repository, server: Server) -> str:
    """Return the sentence that there is no such branch or tag, and what there is."""
    refs = server.get_refs("", ref_prefix=[_BRANCH, _TAG]).refs
    names = [
        name.removeprefix(start).decode("utf-8", "replace")
        for start in (_BRANCH, _TAG)
        for name in refs
        if name.startswith(start) and not name.endswith(b"^{}")
    ]
    ref = str(repository.ref)
    text = f"has no branch, tag or commit {ref!r}"
    if _SHORT.fullmatch(ref):
        text += "; of a commit all 40 digits are needed"
    near = get_close_matches(ref, names, 3, 0.6)
    if near:
        return f"{text}; is {' or '.join(map(repr, near))} meant?"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{text}; there are {', '.join(names[:_NAMED]) or 'none'}{more}"


def _commit(repo: Repo, sha: bytes, repository: Repository) -> Commit:
    try:
        found = repo.get_object(sha)  # type: ignore[arg-type]
        while isinstance(found, Tag):
            found = repo.get_object(found.object[1])
    except KeyError:
        raise NoSuchRef(f"has no commit {repository.ref!r}") from None
    if not isinstance(found, Commit):
        raise Wrong(f"has something at {repository.ref!r} that is no commit")
    return found


def _point(repo: Repo, chosen: _Chosen, commit: bytes) -> None:
    """Have the names in the clone mean what they mean there."""
    refs: Any = repo.refs
    if chosen.branch:
        name = chosen.name.removeprefix(_BRANCH)
        refs[b"refs/remotes/origin/" + name] = commit
        refs[chosen.name] = commit
        refs.set_symbolic_ref(_HEAD, chosen.name)
        if chosen.is_default:
            refs.set_symbolic_ref(b"refs/remotes/origin/HEAD", b"refs/remotes/origin/" + name)
        return
    if chosen.name.startswith(_TAG):
        refs[chosen.name] = chosen.sha
    # On no branch. Through `refs` it would be written to the branch that HEAD names now.
    Path(repo.controldir(), "HEAD").write_bytes(commit + b"\n")


def _configure(repo: Repo, repository: Repository, branch: str) -> None:
    """Say where it came from, as git itself would; no password is ever part of that."""
    config = repo.get_config()
    origin = (b"remote", b"origin")
    config.set(origin, b"url", repository.url.encode())
    config.set(origin, b"fetch", b"+refs/heads/*:refs/remotes/origin/*")
    if branch:
        section = (b"branch", branch.encode())
        config.set(section, b"remote", b"origin")
        config.set(section, b"merge", _BRANCH + branch.encode())
    config.write_to_path()


class _Counted:
    """A store of objects that gives out so many bytes of files and no more.

    A small repository can hold files without end: trees that name one another.
    """

    def __init__(self, store: Any, size: int) -> None:
        self._store, self._size, self._left = store, size, size
        self.pointers: set[bytes] = set()

    def __getitem__(self, sha: bytes) -> Any:
        found = self._store[sha]
        if isinstance(found, Blob):
            self._left -= found.raw_length() + 1
            if self._left < 0:
                raise Wrong(
                    f"has files of more than {show_memory(self._size)}, which is the most that may"
                    " be cloned here (git_size)"
                )
            if found.raw_length() < 1024 and found.data.startswith(_POINTER):
                self.pointers.add(sha)
        return found


def _check_out(repo: Repo, commit: Commit, size: int, made: Made) -> None:
    store: Any = _Counted(repo.object_store, size)
    build_index_from_tree(
        repo.path, repo.index_path(), store, commit.tree, object_format=repo.object_format
    )
    index = Index(repo.index_path())
    for path, entry in index.items():
        made.files += 1
        shown = path.decode("utf-8", "replace")
        mode, sha = getattr(entry, "mode", 0), getattr(entry, "sha", b"")
        if S_ISGITLINK(mode):
            made.submodules.append(shown)
        elif sha in store.pointers:
            made.pointers.append(shown)
