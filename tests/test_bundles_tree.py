"""The format of trees, which may never change, and what it refuses."""

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings, strategies as st

from kaos_hub.bundles import tree
from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.links import check_links
from kaos_hub.bundles.walk import load
from kaos_hub.errors import InvalidBundle, KaosError
from kaos_hub.schemas import EntryKind, TreeEntry
from tests.strategies import names

OF_HELLO = "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
OF_EMPTY_FILE = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
OF_EMPTY_FOLDER = "blake3:aa0d027a658f61249c3775b563941b7016014c2838bdded8c6b8da9b308bd170"
OF_EXAMPLE = "blake3:30453dfdf6a98b959cffdd0f5af9fe4cd1213b1758efb48d81f51f583980fa57"

EXAMPLE = (
    b"kaos tree 1\n"
    b"d aa0d027a658f61249c3775b563941b7016014c2838bdded8c6b8da9b308bd170 0 Empty\n"
    b"f ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f 5 a b\n"
    b"x ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f 5 run\n"
    b"l c95e5a48e784bd89e908893ff0a228fc91d2f1f96a316188c3172d3366c5e57e 3 to\n"
    b"f af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262 0 \xc3\xa9\n"
)


def an_entry(name: str, kind: EntryKind = EntryKind.FILE, size: int = 5) -> TreeEntry:
    return TreeEntry(kind=kind, digest=OF_HELLO, size=size, name=name)


def test_digests_are_these_for_ever() -> None:
    """Golden values: a change here makes every stored bundle a stranger."""
    assert tree.digest(b"hello") == OF_HELLO
    assert tree.digest(b"") == OF_EMPTY_FILE
    assert tree.digest(b"kaos tree 1\n") == tree.EMPTY == OF_EMPTY_FOLDER
    assert tree.digest(EXAMPLE) == OF_EXAMPLE


def test_the_text_is_this_for_ever() -> None:
    """Golden text: kinds, order by bytes (capitals first), sizes, spaces and accents in names."""
    hello = {"digest": OF_HELLO, "size": 5}
    entries = [
        TreeEntry(kind=EntryKind.FILE, digest=OF_EMPTY_FILE, size=0, name="é"),
        TreeEntry(kind=EntryKind.LINK, digest=tree.digest(b"a b"), size=3, name="to"),
        TreeEntry(kind=EntryKind.EXECUTABLE, name="run", **hello),
        TreeEntry(kind=EntryKind.FILE, name="a b", **hello),
        TreeEntry(kind=EntryKind.DIRECTORY, digest=tree.EMPTY, size=0, name="Empty"),
    ]
    assert tree.encode(entries) == EXAMPLE
    assert list(tree.decode(EXAMPLE)) == entries[::-1]


def test_hashing_in_pieces_is_hashing_at_once() -> None:
    hasher = tree.Hasher()
    for piece in (b"he", b"", bytearray(b"ll"), memoryview(b"o")):
        hasher.update(piece)
    assert (hasher.digest(), hasher.size) == (OF_HELLO, 5)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            TreeEntry,
            kind=st.sampled_from(EntryKind),
            digest=st.binary(min_size=32, max_size=32).map(lambda b: f"blake3:{b.hex()}"),
            size=st.integers(0, 2**63 - 1),
            name=names(),
        ),
        unique_by=lambda entry: tree.fold(entry.name),
    )
)
def test_decode_gives_back_what_was_encoded(entries: list[TreeEntry]) -> None:
    decoded = tree.decode(tree.encode(entries))
    assert set(decoded) == set(entries)
    assert tree.encode(reversed(decoded)) == tree.encode(entries)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(EXAMPLE) - 1), st.binary(max_size=2))
@example(0, b"")
@example(len(EXAMPLE) - 1, b"")
def test_a_changed_text_is_refused_or_another_tree(position: int, instead: bytes) -> None:
    """No two texts mean the same tree: what decodes encodes to exactly itself."""
    changed = EXAMPLE[:position] + instead + EXAMPLE[position + 1 :]
    try:
        entries = tree.decode(changed)
    except InvalidBundle:
        return
    assert tree.encode(entries) == changed


HEX = OF_HELLO.removeprefix("blake3:")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param(b"", "the bundle", id="nothing"),
        pytest.param(b"kaos tree 2\n", "the bundle", id="another version"),
        pytest.param(b"kaos tree 1", "the bundle", id="no newline"),
        pytest.param(f"kaos tree 1\nf {HEX} 5 a".encode(), "the bundle", id="cut off"),
        pytest.param(f"kaos tree 1\n\nf {HEX} 5 a\n".encode(), "line 2", id="blank line"),
        pytest.param(f"kaos tree 1\nf {HEX} 5 b\nf {HEX} 5 a\n".encode(), "'a'", id="order"),
        pytest.param(f"kaos tree 1\nf {HEX} 5 a\nx {HEX} 5 a\n".encode(), "'a'", id="twice"),
        pytest.param(f"kaos tree 1\nf {HEX} 05 a\n".encode(), "line 2", id="leading zero"),
        pytest.param(f"kaos tree 1\nf {HEX} -5 a\n".encode(), "line 2", id="negative"),
        pytest.param(f"kaos tree 1\nf {HEX} {2**63} a\n".encode(), "'a'", id="too large"),
        pytest.param(f"kaos tree 1\nf {HEX.upper()} 5 a\n".encode(), "line 2", id="capitals"),
        pytest.param(f"kaos tree 1\nf {HEX[1:]} 5 a\n".encode(), "line 2", id="short digest"),
        pytest.param(f"kaos tree 1\np {HEX} 5 a\n".encode(), "line 2", id="unknown kind"),
        pytest.param(f"kaos tree 1\nf  {HEX} 5 a\n".encode(), "line 2", id="two spaces"),
        pytest.param(f"kaos tree 1\nf {HEX} 5 \n".encode(), "line 2", id="no name"),
        pytest.param(f"kaos tree 1\nf {HEX} 5 ..\n".encode(), "'..'", id="parent"),
        pytest.param(f"kaos tree 1\nf {HEX} 5 a/b\n".encode(), "'a/b'", id="slash"),
        pytest.param(f"kaos tree 1\nf {HEX} 5 a\rb\n".encode(), r"'a\rb'", id="control"),
        pytest.param(f"kaos tree 1\nf {HEX} 5 a\0\n".encode(), r"'a\x00'", id="NUL"),
        pytest.param(f"kaos tree 1\nf {HEX} 5 ".encode() + b"\xff\n", r"'\udcff'", id="not UTF-8"),
    ],
)
def test_decode_refuses(text: bytes, named: str) -> None:
    with pytest.raises(InvalidBundle) as caught:
        tree.decode(text)
    assert named in caught.value.message


@pytest.mark.parametrize(
    "pair",
    [("README", "readme"), ("é", "e\u0301"), ("ß", "SS"), ("ﬁ", "FI"), ("Σ", "ς")],
)
def test_names_that_some_file_system_takes_for_one_are_kept_and_found(
    pair: tuple[str, str],
) -> None:
    entries = [an_entry(name) for name in pair]
    assert {one.name for one in tree.decode(tree.encode(entries))} == set(pair)
    assert tree.alike([*pair, "other"]) == [pair]


def test_an_error_gives_its_entry_to_programs() -> None:
    with pytest.raises(InvalidBundle) as caught:
        tree.encode([an_entry("a\nb")], where="data")
    assert caught.value.details == {"entry": "data/a\nb"}
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "links",
    [
        {"a": "b"},
        {"d/a": "../b"},
        {"d/a": "../d/./a2"},
        {"a": "nothing/here/../.."},
        {"d/up": "..", "a": "d/up/d/up/b"},
    ],
)
def test_links_that_stay_inside_are_kept_dangling_or_not(links: dict[str, str]) -> None:
    check_links(links)


@pytest.mark.parametrize(
    "links",
    [
        pytest.param({"bad": ".."}, id="above the root"),
        pytest.param({"d/bad": "../../etc/passwd"}, id="out of a folder"),
        pytest.param({"bad": "d/up/../x", "d/up": "..", "d/x": "."}, id="through a link"),
        pytest.param({"bad": "nothing/../../x"}, id="through what is not there"),
        pytest.param({"bad": "bad"}, id="itself"),
        pytest.param({"bad": "other/x", "other": "bad"}, id="in circles"),
    ],
)
def test_links_that_leave_the_tree_are_refused(links: dict[str, str]) -> None:
    with pytest.raises(InvalidBundle) as caught:
        check_links(links)
    assert "bad" in caught.value.details["entry"]


def test_links_that_take_hours_to_follow_are_refused() -> None:
    """Each of 39 links multiplies the way."""
    winding = {
        f"{number}": "/".join(["d", ".."] * 1000 + [f"{number + 1}"]) for number in range(39)
    }
    links = winding | {f"start {number}": "0" for number in range(10_000)}
    with pytest.raises(InvalidBundle, match="too long to follow"):
        check_links(links)


class Objects(dict[str, bytes]):
    """Objects in memory, under their digests."""

    def keep(self, content: bytes) -> str:
        self[tree.digest(content)] = content
        return tree.digest(content)

    def folder(self, *entries: TreeEntry) -> TreeEntry:
        """Keep a listing, and give it as an entry called ``d``."""
        digest = self.keep(tree.encode(entries))
        size = sum(entry.size for entry in entries if entry.kind is not EntryKind.LINK)
        return TreeEntry(kind=EntryKind.DIRECTORY, digest=digest, size=size, name="d")

    def read(self, digest: str) -> list[bytes]:
        return [self[digest]]


def test_load_tells_what_a_tree_holds() -> None:
    objects = Objects()
    link = objects.keep(b"a")
    inner = objects.folder(
        an_entry("a"), TreeEntry(kind=EntryKind.LINK, digest=link, size=1, name="l")
    )
    root = objects.folder(inner, an_entry("z", EntryKind.EXECUTABLE))
    loaded = load(root.digest, objects.read)
    assert [item.path for item in loaded.items] == ["d", "d/a", "d/l", "z"]
    assert (loaded.size, loaded.files) == (10, 3)
    assert loaded.objects == {
        OF_HELLO: 5, link: 1, inner.digest: len(objects[inner.digest]),
        root.digest: len(objects[root.digest]),
    }  # fmt: skip


def escaping(objects: Objects) -> TreeEntry:
    target = objects.keep(b"../../x")
    return objects.folder(TreeEntry(kind=EntryKind.LINK, digest=target, size=7, name="l"))


def absolute(objects: Objects) -> TreeEntry:
    target = objects.keep(b"/etc/passwd")
    return objects.folder(TreeEntry(kind=EntryKind.LINK, digest=target, size=11, name="l"))


def lying_about_a_folder(objects: Objects) -> TreeEntry:
    return objects.folder(an_entry("a")).model_copy(update={"size": 6})


def lying_about_a_file(objects: Objects) -> TreeEntry:
    return objects.folder(an_entry("a"), an_entry("b", size=6))


def deep(objects: Objects) -> TreeEntry:
    entry = objects.folder()
    for _ in range(120):
        entry = objects.folder(entry)
    return entry


def bomb(objects: Objects) -> TreeEntry:
    """A few small objects that mean 2**30 entries."""
    entry = objects.folder()
    for _ in range(30):
        twin = entry.model_copy(update={"name": "e"})
        entry = objects.folder(entry, twin)
    return entry


def long_paths(objects: Objects) -> TreeEntry:
    """Few objects that mean paths of many megabytes."""
    entry = objects.folder(*(an_entry(f"{number:04}") for number in range(1000)))
    for _ in range(2):
        entry = objects.folder(
            *(entry.model_copy(update={"name": f"d{number}" + "d" * 200}) for number in range(3))
        )
    return entry


def huge(objects: Objects) -> TreeEntry:
    return objects.folder(an_entry("a", size=2**50))


@pytest.mark.parametrize(
    "hostile",
    [escaping, absolute, lying_about_a_folder, lying_about_a_file, deep, bomb, long_paths, huge],
)
def test_load_refuses_a_hostile_tree(hostile: Callable[[Objects], TreeEntry]) -> None:
    objects = Objects()
    root = objects.folder(hostile(objects))
    with pytest.raises(InvalidBundle) as caught:
        load(root.digest, objects.read, Limits(max_files=10_000, max_paths=10**6))
    assert "'d" in caught.value.message


def test_load_notices_a_damaged_listing() -> None:
    objects = Objects()
    root = objects.folder(an_entry("a"))
    objects[root.digest] += b"f"
    with pytest.raises(KaosError, match="damaged"):
        load(root.digest, objects.read)
