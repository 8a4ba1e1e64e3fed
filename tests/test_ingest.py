"""The ingest program, as a process of its own, between web sites and a service."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from kaos_hub.bundles import tree
from kaos_hub.bundles.scan import scan
from kaos_hub.errors import InvalidBundle, InvalidRequest, LimitExceeded
from kaos_hub.formats import manifest
from kaos_hub.schemas import Fetched, IngestEnd, IngestOrder
from kaos_hub.transport.hosts import Hosts
from kaos_hub.workload.ingest.store import Content, grow
from kaos_hub.workload.ingest.web import Web
from tests.hub import ROOT, wait_until
from tests.sites import Page, Site, ftp, serving
from tests.strategies import names
from tests.work_server import CUT, WorkServer, work_server

# As `-I -m kaos_hub.workload.ingest.ingest`, from this checkout.
RUN = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
sys.exit(runpy.run_module("kaos_hub.workload.ingest.ingest", run_name="__main__"))
"""


@dataclass
class Ended:
    """How an ingest ended."""

    code: int
    out: str
    error: str
    memory: int
    """Bytes that it held at most."""


@dataclass
class Desk:
    """A site, a service, and the program between them."""

    site: Site
    work: WorkServer
    root: Path

    def write(self, *lines: str | dict[str, Any], file: str = "list") -> None:
        """The manifest."""
        path = self.root / "kaos/manifest" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(text) + "\n")

    def order(self, **order: Any) -> None:
        """What the service orders."""
        said: dict[str, Any] = {"manifest": tree.EMPTY, "max_size": 10**12, "allow": ["127.0.0.1"]}
        self.work.order = IngestOrder(**{**said, **order})

    def start(self, *options: str, **variables: str) -> "subprocess.Popen[str]":
        """Begin an ingest."""
        if self.work.order is None:
            self.order()
        place = self.root / "kaos"
        (place / "ticket").write_text(self.work.ticket + "\n")
        env = {k: v for k, v in os.environ.items() if not k.startswith("KAOS_")}
        env |= {"KAOS_ROOT": str(self.root), "KAOS_WORK_URL": self.work.url, **variables}
        # A proxy of the environment is not asked.
        env |= {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
        return subprocess.Popen(
            [sys.executable, "-I", "-c", RUN, str(ROOT), *options],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *options: str, **variables: str) -> Ended:
        """Ingest, and see how it ends."""
        process = self.start(*options, **variables)
        peak = threading.Thread(target=self._watch, args=(process,))
        self.memory = 0
        peak.start()
        out, error = process.communicate(timeout=200)
        peak.join()
        return Ended(process.returncode, out, error, self.memory)

    def _watch(self, process: "subprocess.Popen[str]") -> None:
        while process.poll() is None:
            try:
                found = re.search(
                    r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text()
                )
            except OSError:
                return
            self.memory = max(self.memory, int(found[1]) << 10 if found else 0)
            time.sleep(0.02)

    def end(self) -> IngestEnd:
        """What the service was told in the end."""
        assert len(self.work.ended) == 1
        return self.work.ended[0]

    def index(self, digest: str | None = None) -> list[Fetched]:
        """The lines of an index."""
        text = self.work.path(digest or self.end().index).read_text()
        return [Fetched.model_validate_json(line) for line in text.splitlines()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving() as site, work_server(tmp_path / "objects") as work:
        (tmp_path / "root/kaos").mkdir(parents=True)
        yield Desk(site, work, tmp_path / "root")


# --- what comes ---


def test_a_manifest_becomes_a_tree(desk: Desk) -> None:
    """Redirects, servers that do not say how long a file is, passing trouble: all is well."""
    site, noise = desk.site, os.urandom(300_000)
    site.pages["/moved"] = Page(b"gone", 302, {"Location": "/moved/../again?x=%20y"})
    site.pages["/again?x=%20y"] = Page(b"gone", 308, {"Location": f"{site.url}/plain"})
    site.pages["/later"] = lambda n: Page(b"it is", 200 if n > 2 else 502 + n)
    site.pages["/busy"] = lambda n: (
        Page(b"at last") if n > 1 else Page(b"", 429, {"Retry-After": "1"})
    )
    sha = hashlib.sha256(noise).hexdigest()
    desk.write(
        "# a list",
        {"url": site.put("/plain", b"plain"), "path": "/one.txt"},
        {"url": site.url + "/moved", "path": "sub/moved.txt"},
        "",
        {"url": site.put("/noise", noise), "path": "noise", "sha256": sha.upper(), "size": 300_000},
        {"url": site.put("/chunked", noise, chunked=True), "path": "chunked", "sha256": sha},
        {"url": site.put("/old", noise, length=False), "path": "old", "size": 300_000},
        {"url": site.put("/empty", b""), "path": "empty", "size": 0},
        {"url": site.url + "/later", "path": "later"},
        {"url": site.url + "/busy", "path": "busy"},
    )
    desk.write({"url": site.url + "/plain#part", "path": "two.txt"}, file="more/list.jsonl")
    ended = desk.run()
    assert (ended.code, ended.error) == (0, ""), ended
    assert desk.work.tree(desk.end().root) == {
        "one.txt": b"plain", "sub/moved.txt": b"plain", "more/two.txt": b"plain", "noise": noise,
        "chunked": noise, "old": noise, "empty": b"", "later": b"it is", "busy": b"at last",
    }  # fmt: skip
    end = desk.end()
    assert (end.files, end.fetched, end.size) == (9, 9, 900_000 + 15 + 5 + 7)
    assert sorted(re.findall(r"^Step (\d)/9 : ", ended.out, re.M)) == list("123456789")
    assert "kaos: 9 files, 900,027 bytes; 9 of them fetched now" in ended.out
    assert {r["Host"] for r in site.requests} == {f"127.0.0.1:{site.port}"}
    assert not (desk.root / "kaos/ingest").exists()


def test_what_is_cut_is_gone_on_with(desk: Desk) -> None:
    """Where the server allows it; else, or if the file is another one now, from the beginning."""
    site, noise, other = desk.site, os.urandom(2_000_000), os.urandom(2_000_000)
    tag = {"ETag": '"1"'}
    site.pages["/cut"] = lambda n: Page(noise, headers=tag, cut=600_000 if n < 4 else None)
    site.pages["/whole"] = lambda n: Page(noise, ranges=False, cut=600_000 if n < 3 else None)
    site.pages["/chunks"] = lambda n: Page(noise, chunked=True, cut=None if n > 1 else 1)
    site.pages["/changed"] = lambda n: (
        Page(other, headers={"ETag": '"2"'}) if n > 1 else Page(noise, headers=tag, cut=600_000)
    )
    # It has no ETag, but a checksum tells: nothing is put together of two files.
    site.pages["/mixed"] = lambda n: Page(other) if n > 1 else Page(noise, cut=600_000)
    sha = hashlib.sha256(other).hexdigest()
    entries = [{"url": f"{site.url}/{n}", "path": n} for n in ("cut", "whole", "chunks", "changed")]
    desk.write(*entries, {"url": site.url + "/mixed", "path": "mixed", "sha256": sha})
    ended = desk.run()
    assert ended.code == 0, ended
    found = desk.work.tree(desk.end().root)
    assert [n for n, content in found.items() if content == noise] == ["chunks", "cut", "whole"]
    assert [n for n, content in found.items() if content == other] == ["changed", "mixed"]
    ranges = [r["Range"] for r in site.requests if r["path"] == "/cut" and "Range" in r]
    starts = [int(text[6:-1]) for text in ranges]
    assert starts == [600_000, 1_200_000, 1_800_000]
    assert site.asked.count("/mixed") == 3


def test_only_what_changed_is_fetched_again(desk: Desk) -> None:
    site, work = desk.site, desk.work
    urls = [site.put(f"/{n}", b"content %d" % n) for n in range(40)]
    lines = [{"url": url, "path": f"{n}.txt"} for n, url in enumerate(urls)]
    desk.write(*lines)
    desk.order(parallel=5)
    site.gate.clear()
    process = desk.start()
    wait_until(lambda: site.busiest == 5, 30)
    site.gate.set()
    process.communicate()
    assert process.returncode == 0 and site.busiest == 5
    first = work.ended.pop()
    assert len(desk.index(first.index)) == 40
    site.asked.clear()
    site.put("/new", b"new")
    lines[3] = {"url": site.url + "/new", "path": "3.txt"}
    lines[4] |= {"size": len(b"content 4")}
    lines[5] |= {"sha256": hashlib.sha256(b"content 5").hexdigest()}
    work.path(tree.digest(b"content 6")).unlink()
    desk.write("# another line", *lines[:39])
    desk.order(index=first.index)
    ended = desk.run()
    assert ended.code == 0 and "39 files, of which 36 are there already" in ended.out
    assert sorted(site.asked) == ["/5", "/6", "/new"] and desk.end().fetched == 3
    found = work.tree(desk.end().root)
    assert len(found) == 39 and (found["3.txt"], found["6.txt"]) == (b"new", b"content 6")


def test_other_schemes_where_the_admin_allows_them(desk: Desk) -> None:
    content = os.urandom(100_000)
    with ftp({"a b/c.bin": content}) as url:
        desk.write({"url": url + "/a%20b/c.bin", "path": "c", "size": len(content)})
        ended = desk.run()
        assert "ftp:// may not be fetched here, but http, https" in ended.error
        desk.order(schemes=["http", "ftp", "s3"])
        ended = desk.run()
        assert ended.code == 0, ended
        assert desk.work.tree(desk.end().root) == {"c": content}
        desk.write({"url": url + "/d", "path": "d"}, {"url": "s3://bucket/e", "path": "e"})
        ended = desk.run()
        assert "list:1: d: answered with 550 no such file" in ended.error
        assert "e: s3:// is allowed here, and cannot be fetched by this version" in ended.out


# --- what does not come ---


def test_every_file_that_cannot_be_had_is_named(desk: Desk, tmp_path: Path) -> None:
    site, work = desk.site, desk.work
    secret = site.put("/secret", b"password")
    elsewhere = secret.replace("127.0.0.1", "127.0.0.2")
    for name, to in {
        "private": elsewhere, "metadata": "http://169.254.169.254/latest", "loop": "/loop",
        "file": "file:///etc/passwd", "mapped": f"http://[::ffff:127.0.0.2]:{site.port}/secret",
        "decimal": f"http://2130706434:{site.port}/secret", "none": "http://[",
    }.items():  # fmt: skip
        site.pages[f"/{name}"] = Page(b"", 302, {"Location": to})
    site.pages["/down"] = Page(b"", 500)
    site.pages["/cut"] = Page(b"x" * 1000, cut=10, ranges=False)
    good = site.put("/good", b"good")
    zeros = "0" * 64
    wrong = {
        "404": (site.url + "/nothing", r"answered with 404 Not Found"),
        "500": (site.url + "/down", r"answered with 500 Internal Server Error; gave up after 1 s"),
        "cut": (site.url + "/cut", r"the connection was cut; gave up after 1 s"),
        "private": (site.url + "/private", r"redirected, and 127\.0\.0\.2 is not a public address"),
        "metadata": (site.url + "/metadata", r"169\.254\.169\.254 is not a public address"),
        "mapped": (site.url + "/mapped", r"::ffff:\S+ .* not a public address"),
        "decimal": (site.url + "/decimal", r"2130706434 is 127\.0\.0\.2, which is not a public"),
        "loop": (site.url + "/loop", r"it was redirected more than 10 times"),
        "file": (site.url + "/file", r"redirected, and file:// may not be fetched here"),
        "none": (site.url + "/none", r"it was redirected to 'http://\[', which is no URL"),
        "direct": (elsewhere, r"127\.0\.0\.2 is not a public address; the admin can allow it"),
        "scheme": ("s3://bucket/key", r"s3:// may not be fetched here, but http, https"),
        "host": ("http://no-such-host.invalid/", r"there is no host called no-such-host\.invalid"),
        "closed": ("http://127.0.0.1:9/", r"cannot be reached: Connection refused; gave up"),
    }
    entries = [{"url": url, "path": f"bad/{name}"} for name, (url, _) in wrong.items()]
    entries += [
        {"url": good, "path": "sha", "sha256": zeros},
        {"url": good, "path": "size", "size": 3},
        {"url": good, "path": "good"},
    ]
    desk.write("# see", *entries)
    ended = desk.run("--patience", "1")
    assert ended.code == 1 and not work.ended
    for line, (name, (_, said)) in enumerate(wrong.items(), start=2):
        assert re.search(rf"^error: list:{line}: bad/{name}: .*{said}", ended.out, re.M), (
            name,
            ended,
        )
    assert f"sha: its sha256 is {hashlib.sha256(b'good').hexdigest()}, and the man" in ended.out
    assert "size: it has 4 bytes, and the manifest says 3" in ended.out
    assert ended.error == (
        "error: list:2: bad/404: answered with 404 Not Found (and 15 more files)\n"
    )
    assert "/secret" not in site.asked
    # What could be had is not fetched again once the manifest is corrected.
    assert [f.path for f in desk.index(work.parts[-1].index)] == ["good"]


def test_names_of_this_machine_are_refused_unless_allowed(desk: Desk) -> None:
    url = desk.site.put("/x", b"x").replace("127.0.0.1", "localhost")
    desk.write({"url": url, "path": "x"})
    desk.order(allow=["10.0.0.0/8"])
    ended = desk.run()
    assert re.search(r"localhost is \S+, which is not a public address", ended.error)
    assert ended.code == 1 and not desk.site.asked
    desk.order(allow=["127.0.0.0/8", "::1"])
    assert desk.run().code == 0
    assert desk.site.requests[0]["Host"] == f"localhost:{desk.site.port}"
    desk.order(allow=["here"])
    assert re.search(r"error: networks .* 'here' does not appear", desk.run().error)


def test_a_wrong_manifest_fetches_nothing(desk: Desk) -> None:
    desk.write({"url": desk.site.put("/x", b"x"), "path": "x"}, '{"url": "", "path": "test/a.csv"}')
    ended = desk.run()
    assert ended.code == 1 and not desk.site.asked
    assert ended.error.startswith("error: list:2: it has an empty url; the published examples")


def test_limits_and_the_end_of_the_job(desk: Desk) -> None:
    desk.write(*[{"url": desk.site.put(f"/{n}", b"x" * 1000), "path": f"{n}"} for n in range(9)])
    desk.order(max_size=5000)
    ended = desk.run()
    assert ended.code == 1 and "more than the 5,000 bytes that may be added" in ended.error
    refusal = (403, LimitExceeded("You may store 1Gi, and hold all of it.").body())
    desk.order()
    desk.work.trouble = lambda path, number: refusal if path == "missing" else None
    ended = desk.run()
    assert (ended.code, ended.error) == (1, "error: You may store 1Gi, and hold all of it.\n")
    desk.work.trouble = lambda path, number: None
    (desk.root / "kaos/ticket").write_text("old")
    process = desk.start()
    process.kill()
    process.communicate()
    desk.work.ticket, ticket = "new", desk.work.ticket
    process = desk.start()
    desk.work.ticket = ticket
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and error.startswith("error: the job is over")


# --- bad days ---


def test_a_killed_one_begins_where_it_was(desk: Desk) -> None:
    """Also while the service is away now and then."""
    site, work = desk.site, desk.work
    unavailable = (503, {"code": "unavailable", "message": "later"})
    work.trouble = lambda path, number: (
        {1: (CUT, None), 3: unavailable}.get(number) if path != "fetched" else None
    )
    gate = threading.Event()

    def held(number: int) -> Page:
        gate.wait(60)
        return Page(b"late")

    site.pages["/slow"] = held
    urls = [site.put(f"/{n}", b"content %d" % n) for n in range(100)]
    lines = [{"url": url, "path": f"{n}.txt"} for n, url in enumerate(urls)]
    desk.write(*lines, {"url": site.url + "/slow", "path": "slow"})
    process = desk.start("--part", "0.2")
    wait_until(lambda: work.parts and len(desk.index(work.parts[-1].index)) == 100, 60)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    process.communicate()
    gate.set()
    site.asked.clear()
    desk.order(index=work.parts[-1].index)
    ended = desk.run()
    assert ended.code == 0, ended
    assert site.asked == ["/slow"] and desk.end().fetched == 1
    assert len(work.tree(desk.end().root)) == 101


def test_ten_thousand_small_files_are_quick(desk: Desk) -> None:
    site = desk.site
    lines = [{"url": site.put(f"/{n}", b"%d" % n), "path": f"{n % 100}/{n}"} for n in range(10_000)]
    desk.write(*lines)
    began = time.monotonic()
    ended = desk.run()
    seconds = time.monotonic() - began
    assert ended.code == 0, ended.error
    print(f"{seconds:.1f} s, {ended.memory >> 20} MiB")
    assert desk.work.tree(desk.end().root)["42/1042"] == b"1042"
    assert len(re.findall(r"^Step", ended.out, re.M)) == 100 and "Step 10000/10000" in ended.out
    assert seconds < 60 and ended.memory < 150 << 20
    assert desk.work.times("objects") < 1000


def test_large_files_take_little_memory_and_disk(desk: Desk) -> None:
    site, content = desk.site, os.urandom(60 << 20)
    desk.write(*[{"url": site.put(f"/{n}", content + b"%d" % n), "path": f"{n}"} for n in range(6)])
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            found = [p.stat().st_size for p in (desk.root / "kaos").glob("ingest/*") if p.exists()]
            peak[0] = max(peak[0], sum(found))

    thread = threading.Thread(target=watch)
    thread.start()
    ended = desk.run(KAOS_STORAGE=str(200 << 20))
    stop.set()
    thread.join()
    assert ended.code == 0, ended.error
    print(f"{ended.memory >> 20} MiB of memory, {peak[0] >> 20} MiB of disk")
    assert ended.memory < 150 << 20 and peak[0] < 200 << 20
    assert desk.end().size == 6 * len(content) + 6


# --- addresses, certificates, trees ---


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False),
        ("100.100.100.200", False), ("168.63.129.16", False), ("0.0.0.0", False),
        ("224.0.0.1", False), ("240.0.0.1", False), ("255.255.255.255", False),
        ("192.0.0.192", False), ("::", False), ("::1", False), ("fe80::1", False),
        ("fd00:ec2::254", False), ("fec0::1", False), ("ff02::1", False),
        ("::ffff:127.0.0.1", False), ("::ffff:169.254.169.254", False), ("::7f00:1", False),
        ("64:ff9b::7f00:1", False), ("64:ff9b::a9fe:a9fe", False), ("2002:7f00:1::", False),
        ("2001:0:808:808::", False), ("::ffff:0:7f00:1", False), ("::ffff:a83f:8110", False),
    ],
)  # fmt: skip
def test_private_addresses_in_all_their_disguises(address: str, public: bool) -> None:
    assert Hosts([]).allows(ip_address(address)) is public
    assert Hosts([address]).allows(ip_address(address))
    assert Hosts(["0.0.0.0/0", "::/0"]).allows(ip_address(address))
    with pytest.raises(InvalidRequest):
        Hosts(["example.org"])


class Rebound(Hosts):
    """Has judged a name that means another machine by now."""

    def find(self, host: str, port: int) -> list[str]:
        return ["127.0.0.1"]


def test_the_address_that_was_judged_is_the_one_that_is_asked() -> None:
    with serving() as site:
        site.put("/x?y", b"here")
        web = Web(Rebound([]), ["http"], 1, threading.Event())
        answer = web.get(f"http://me:pass%20word@bücher.example:{site.port}/x?y", {})
        assert answer.read() == b"here"
    asked = site.requests[0]
    assert asked["Host"] == f"xn--bcher-kva.example:{site.port}"
    assert asked["Authorization"].startswith("Basic ")


def test_certificates_are_those_of_the_name(desk: Desk, tmp_path: Path) -> None:
    pem = tmp_path / "pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", pem, "-out",
         f"{pem}.crt", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    with pem.open("a") as file:
        file.write(Path(f"{pem}.crt").read_text())
    desk.order(allow=["127.0.0.0/8", "::1"])
    with serving(certificate=pem) as site:
        site.put("/x", b"secure")
        urls = [f"https://{host}:{site.port}/x" for host in ("localhost", "127.0.0.1")]
        desk.write({"url": urls[0], "path": "x"})
        assert desk.run(SSL_CERT_FILE=f"{pem}.crt").code == 0
        assert desk.work.tree(desk.end().root) == {"x": b"secure"}
        assert "the certificate of localhost is not trusted" in desk.run().error
        desk.write({"url": urls[1], "path": "x"})
        ended = desk.run(SSL_CERT_FILE=f"{pem}.crt")
        assert "the certificate of 127.0.0.1 is not trusted" in ended.error


@given(st.lists(st.lists(names(), min_size=1, max_size=3).map("/".join), max_size=8))
def test_the_tree_is_that_of_the_same_folder(paths: list[str]) -> None:
    lines = [json.dumps({"url": "http://h/", "path": path}).encode() for path in paths]
    try:
        found = [entry.path for entry in manifest.parse("m", lines)]
    except InvalidBundle:
        assume(False)
    contents = {path: path.encode() * 3 for path in found}
    root, nodes = grow((p, Content(tree.digest(c), len(c))) for p, c in contents.items())
    with tempfile.TemporaryDirectory() as folder:
        for path, content in contents.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        right = scan(folder)
    assert root == right.root and nodes == dict(right.nodes)
