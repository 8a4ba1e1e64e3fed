"""What a browser's folder leaves out is what a scan of the same folder leaves out."""

from pathlib import Path

import pytest

from kaos_hub.bundles.ignore import DATA, SOURCE, Rules, rules_for
from kaos_hub.bundles.limits import Limits
from kaos_hub.bundles.scan import scan
from kaos_hub.bundles.sift import sift
from kaos_hub.errors import InvalidBundle
from kaos_hub.schemas import BundleKind
from tests.test_versions import folder

FILES = {
    "Dockerfile": "FROM x",
    "model/train": "1",
    "model/__pycache__/a.pyc": "",
    "model/keep/.git/HEAD": "",
    ".venv/lib/x": "",
    ".kaosignore": "*.log\n/top.txt\n!venv/\n",
    "venv/brought/back": "",
    "a.log": "",
    "sub/a.log": "",
    "sub/.kaosignore": "!a.log\nmine/\n",
    "sub/mine/x": "",
    "sub/mine/y": "",
    "other/mine/x": "",
    "top.txt": "",
    "sub/top.txt": "",
    ".DS_Store": "",
}


@pytest.mark.parametrize("rules", [SOURCE, DATA, rules_for(BundleKind.PARAMS)])
def test_it_says_what_a_scan_says(tmp_path: Path, rules: Rules) -> None:
    folder(tmp_path, FILES)
    ignores = {path: text for path, text in FILES.items() if path.endswith(".kaosignore")}
    found = sift(FILES, ignores, rules, Limits())
    assert sorted(one.path for one in found) == sorted(scan(tmp_path, rules).skipped)
    reasons = {one.path: one.reason for one in found}
    if rules is SOURCE:
        assert reasons["a.log"] == ".kaosignore lists it"
        assert reasons[".venv/"] == "tools leave it behind"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a/../b", "cannot be a name"),
        ("a//b", "cannot be a name"),
        ("/a", "cannot be a name"),
        ("", "is no file"),
        ("a\x1b[31m", "control character"),
        ("x" * 300, "longer than 255 bytes"),
        ("/".join(["x"] * 200), "deeper"),
        ("\ud800", "not UTF-8"),
    ],
)
def test_names_that_no_bundle_may_hold_are_refused(path: str, said: str) -> None:
    with pytest.raises(InvalidBundle, match=said):
        sift([path], {}, DATA, Limits())


def test_lines_that_are_no_pattern_are_told() -> None:
    with pytest.raises(InvalidBundle, match=r"'sub/\.kaosignore' line 2"):
        sift(["sub/.kaosignore"], {"sub/.kaosignore": "ok\n\\\n"}, DATA, Limits())
