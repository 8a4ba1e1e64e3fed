"""Patterns of strangers (cause 3 of the review): they mean what git says, and hold nobody up."""

import re
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings, strategies as st

from kaos_hub.bundles.gitignore import IgnoreFile, parse

_NAMES = st.text("ab.-", min_size=1, max_size=4).filter(lambda name: set(name) != {"."})
PATHS = st.lists(_NAMES, min_size=1, max_size=4).map("/".join)
_PIECE = st.sampled_from(
    ["a", "b", "ab", ".", "-", "*", "**", "***", "?", "/", "/", "**/", "/**", "[ab]", "[!a]",
     "[^b]", "[a-b]", "[]a]", "[a-]", "[-a]", "[[:alpha:]]", "[![:alpha:]-]", "\\a", "\\*",
     "[\\a]", "[a/b]", "[[:]", "!", "#", " ", "\\ ", "[*]", "[--.]"]
)  # fmt: skip
PATTERNS = st.lists(_PIECE, min_size=1, max_size=6).map("".join)


def git_ignores(work: Path, patterns: list[str], path: str, directory: bool) -> bool:
    """What git itself says of an entry that is there."""
    if not (work / ".git").exists():
        subprocess.run(["git", "init", "-q", work], check=True)
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        (folder / ".gitignore").write_text("".join(f"{line}\n" for line in patterns))
        (folder / path if directory else (folder / path).parent).mkdir(parents=True, exist_ok=True)
        if not directory:
            (folder / path).touch()
        run = subprocess.run(
            ["git", "-C", folder, "check-ignore", "--no-index", "-q", "--", path],
            capture_output=True,
        )
    assert run.returncode in (0, 1), run.stderr
    return run.returncode == 0


def we_ignore(patterns: list[str], path: str, directory: bool) -> bool:
    """What a scan would: an entry, or a folder above it, is left out."""
    lines = []
    for line in patterns:
        try:
            parse(line)
            lines.append(line)
        except ValueError:
            lines.append("")
    file = IgnoreFile(lines)
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        last = end == len(parts)
        if file.decide("/".join(parts[:end]), directory or not last):
            return True
    return False


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PATTERNS, min_size=1, max_size=3), PATHS, st.booleans())
@example(["a/**/b"], "a/b", False)
@example(["a/**"], "a", True)
@example(["**/a/*b"], "b/a/ab/a", False)
@example(["*.a", "!b.a"], "b.a", False)
@example(["a\\ "], "a ", False)
@example(["/**/b/**/a"], "b/a", False)
def test_patterns_mean_what_git_says(
    tmp_path_factory: pytest.TempPathFactory, patterns: list[str], path: str, directory: bool
) -> None:
    # After letters it is one star, says git's documentation; git itself cuts the letters off first.
    assume(not any(re.search(r"[^/*!]\*{2,}(/|$)", pattern) for pattern in patterns))
    work = tmp_path_factory.getbasetemp() / "repository"
    work.mkdir(exist_ok=True)
    assert we_ignore(patterns, path, directory) == git_ignores(work, patterns, path, directory)


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 200 + "b",
        "a" + "*?a" * 150 + "b",
        "**/" + "*a/**/" * 100 + "b",
        "*[!b]" * 200 + "b",
        "**/*a*/**/*a*/**/*a*/**/*a*/**/*a*b",
        "*" * 2000 + "b",
        "**/" * 300 + "b",
        "?*" * 300 + "b",
        "*[[:alpha:]]*" * 100 + "b",
    ],
)
@pytest.mark.parametrize("path", ["a" * 1000, "a/" * 99 + "a", "aa/" * 99 + "aa" * 100])
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    """Attack of cause 3: a pattern that takes Python's ``re`` years on a path of 40 letters."""
    file = IgnoreFile([pattern])
    began = time.process_time()
    file.decide(path, False)
    assert time.process_time() - began < 0.2
