"""What is in the images: bills of materials, and what is known against it."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from kaos_hub import __version__
from tests.engines import needs_docker
from tests.hub import ROOT

DPKG = """Package: libc6
Status: install ok installed
Version: 2.41-12

Package: gone
Status: deinstall ok config-files
Version: 1
"""
FILES = {
    "opt/kaos-hub/lib/python3.13/site-packages/Jinja2-3.1.2.dist-info/METADATA": (
        "Metadata-Version: 2.1\nName: Jinja2\nVersion: 3.1.2\n\nName: not this\n"
    ),
    "var/lib/dpkg/status": DPKG,
    "x/node_modules/http-proxy/package.json": '{"name": "http-proxy", "version": "1.18.1"}',
    "x/node_modules/http-proxy/test/package.json": '{"name": "no", "version": "1"}',
    "etc/METADATA": "Name: no\nVersion: 1\n",
}
PURLS = ["pkg:deb/debian/libc6@2.41-12", "pkg:npm/http-proxy@1.18.1", "pkg:pypi/jinja2@3.1.2"]


def run(
    script: str, *words: str | Path, folder: Path = ROOT / "images", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """A program of `images/`."""
    command = [sys.executable, str(folder / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


@pytest.fixture
def registry() -> Iterator[str]:
    """A name under which the Docker Engine has an image `notebook` with just those files."""
    name = f"bills-{os.getpid()}"
    held = BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for path, text in FILES.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, BytesIO(text.encode()))
    called = f"{name}/kaos-hub/notebook:{__version__}"
    subprocess.run(["docker", "import", "-", called], input=held.getvalue(), check=True)
    yield name
    subprocess.run(["docker", "rmi", "--force", called], check=True)


@pytest.mark.docker
@needs_docker
def test_a_bill_says_what_is_in_an_image_and_always_the_same(registry: str, tmp_path: Path) -> None:
    texts = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        done = run("sbom.py", "--registry", registry, "--out", folder, "notebook")
        assert (done.returncode, done.stdout) == (0, "notebook: 3 packages\n"), done.stderr
        texts.append((folder / "notebook.cdx.json").read_bytes())
    assert texts[0] == texts[1]
    bill = json.loads(texts[0])
    assert bill["bomFormat"] == "CycloneDX"
    assert sorted(c["purl"] for c in bill["components"]) == PURLS
    whole = bill["metadata"]["component"]
    assert (whole["name"], whole["version"]) == ("notebook", __version__)


@pytest.mark.docker
@needs_docker
def test_an_image_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = run("sbom.py", "--registry", "nobody", "--out", tmp_path, "notebook")
    assert done.returncode == 1 and "No such image" in done.stderr
    assert "Traceback" not in done.stderr


class DatabaseThatKnows(HTTPServer):
    """Answers as OSV does, and knows something against these packages."""

    def __init__(self, against: set[str]) -> None:
        self.against = against
        super().__init__(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        known = [{"vulns": [{"id": "X-1"}]} if q["package"]["purl"] in server.against else {}
                 for q in asked]  # fmt: skip
        self.send_response(200 if self.path == "/v1/querybatch" else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"results": known}).encode())

    def log_message(self, *_: Any) -> None:
        """Nothing to stderr."""


@pytest.fixture
def bills(tmp_path: Path) -> Path:
    """A folder with one bill."""
    components = [{"purl": purl} for purl in PURLS]
    (tmp_path / "hub.cdx.json").write_text(json.dumps({"components": components}))
    return tmp_path


@pytest.mark.parametrize(
    ("against", "code", "said"),
    [
        (set(), 0, "3 packages; vulnerable: 0, and 0 of Debian's"),
        ({PURLS[0]}, 0, "vulnerable: 0, and 1 of Debian's"),
        ({PURLS[2]}, 1, "pkg:pypi/jinja2@3.1.2 (in hub): X-1"),
    ],
)
def test_what_is_known_against_packages(
    bills: Path, against: set[str], code: int, said: str
) -> None:
    database = DatabaseThatKnows(against)
    done = run("scan.py", "--from", bills, OSV_URL=database.url)
    database.shutdown()
    assert done.returncode == code and said in done.stdout, done.stdout + done.stderr


def test_a_database_that_does_not_answer_is_said(bills: Path) -> None:
    done = run("scan.py", "--from", bills, OSV_URL="http://127.0.0.1:1")
    assert done.returncode == 0 and "NOT SCANNED: http://127.0.0.1:1" in done.stdout


def test_without_bills_there_is_nothing_to_ask(tmp_path: Path) -> None:
    done = run("scan.py", "--from", tmp_path)
    assert done.returncode == 1 and "make images" in done.stderr


def test_the_hubs_packages_are_pinned_as_setup_allows(tmp_path: Path) -> None:
    """A new requirement needs a pin, and a new bound one that fits."""
    from packaging.requirements import Requirement

    for path in (ROOT / "images/hub/requirements.py", ROOT / "setup.cfg"):
        shutil.copy(path, tmp_path)  # beside each other, as in the build
    done = run("requirements.py", folder=tmp_path)
    needed = [Requirement(line) for line in done.stdout.split()]
    lines = (ROOT / "images/hub/constraints.txt").read_text().splitlines()
    pins = {r.name.lower(): next(iter(r.specifier)).version for r in map(Requirement, lines)}
    assert needed
    for each in needed:
        assert each.specifier.contains(pins[each.name.lower()]), each
