"""A tree of 100,000 small files, brought to a folder: what a pod waits for before it starts.

Our fetch (each file verified, all or nothing) against `curl | tar x` of the same files as one
archive from an HTTP server, and `cp -r` from a folder on the same disk. Server and client share the
machine.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from benchmarks.harness import (
    Comparison,
    Contestant,
    Report,
    alternate,
    arguments,
    output,
    seconds,
    versions,
)
from benchmarks.hubs import ours
from benchmarks.rebuild import Sizes, make_data
from kaos_hub.bundles.scan import scan
from tests.fetching import command, direct, ticket_for
from tests.hub import RunningHub

SIZES = Sizes(folders=100, files_per_folder=1000)
SMOKE = Sizes(folders=3, files_per_folder=10)


def main() -> None:
    """Run the comparison and print what came out."""
    given = arguments(__doc__.partition("\n")[0], ["fetch"])
    report = Report("fetch_tree", versions("blake3"))
    if shutil.which("curl") is None:
        report.skip("fetch", "curl is not installed")
    else:
        report.versions["tar"] = output("tar", "--version").split()[3]
        report.versions["curl"] = output("curl", "--version").split()[1]
        directory = Path(tempfile.mkdtemp(prefix="kaos-bench-"))
        try:
            sizes = SMOKE if given.smoke else SIZES
            report.comparisons.append(_fetches(directory, sizes, given.rounds))
        finally:
            subprocess.run(["chmod", "-R", "u+w", directory], check=True)
            shutil.rmtree(directory, ignore_errors=True)
    report.show(given.json)


def _fetches(directory: Path, sizes: Sizes, rounds: int) -> Comparison:
    data, archive, targets = directory / "data", directory / "served/data.tar", directory / "out"
    make_data(data, sizes)
    archive.parent.mkdir()
    targets.mkdir()
    subprocess.run(["tar", "cf", archive, "-C", data, "."], check=True)
    root = scan(data).root
    # Nothing is deleted meanwhile: ext4 makes new files slowly just after that.
    numbers = count()

    def timed(line: list[str], target: Path) -> float:
        taken = seconds(lambda: subprocess.run(line, check=True, capture_output=True))
        assert sum(1 for _ in target.glob("*/*")) == sizes.folders * sizes.files_per_folder
        return taken

    def tar(url: str) -> float:
        target = targets / str(next(numbers))
        target.mkdir()
        pipe = f"set -o pipefail; curl -sf {url}/data.tar | tar x -C {target}"
        return timed(["bash", "-c", pipe], target)

    def copy() -> float:
        target = targets / str(next(numbers))
        return timed(["cp", "-r", str(data), str(target)], target)

    def fetch(hub: RunningHub, ticket: str, *options: str) -> float:
        target = targets / str(next(numbers))
        tree = f"{root}={target}"
        return timed(command(direct(hub), ticket, directory, "--tree", tree, *options), target)

    with ours(directory / "hub", "local") as us, http_server(archive.parent) as url:
        us.client.bundles.submit(data, "data")
        ticket = ticket_for(us.hub, [root])
        series = alternate(
            [
                Contestant("tar x from HTTP", lambda: tar(url)),
                Contestant("cp -r", copy),
                Contestant("kaos_hub", lambda: fetch(us.hub, ticket, "--no-sync")),
                Contestant("kaos_hub, on disk at its end", lambda: fetch(us.hub, ticket)),
            ],
            rounds,
            "fetch",
        )
        memory = us.hub.service_memory() >> 20
    files = sizes.folders * sizes.files_per_folder
    remark = f"The service's memory at the end: {memory} MB."
    return Comparison(f"{files:,} files of 4 kB to a folder", series, remarks=(remark,))


@contextlib.contextmanager
def http_server(directory: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """Python's own file server, in a process of its own."""
    script = (
        "import functools, http.server as h, sys;"
        "H = functools.partial(h.SimpleHTTPRequestHandler, directory=sys.argv[1]);"
        "s = h.ThreadingHTTPServer((sys.argv[2], 0), H);"
        "print(s.server_port, flush=True); s.serve_forever()"
    )
    line = [sys.executable, "-c", script, str(directory), address]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield f"http://{address}:{int(server.stdout.readline())}"
        finally:
            server.kill()


if __name__ == "__main__":
    main()
