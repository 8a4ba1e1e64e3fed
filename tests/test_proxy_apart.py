"""A proxy that the Hub did not start: it may come late, and forgets everything when it goes."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

from kaos_hub.deployment.proxy import program
from kaos_hub.installation.datadir import DataDir
from tests.hub import RunningHub, request, wait_until

_APART = "c.ConfigurableHTTPProxy.should_start = False\n"


@contextlib.contextmanager
def proxy_of(hub: RunningHub) -> Iterator[None]:
    """A proxy as a pod of its own runs it."""
    data = DataDir(hub.data)
    ports = f"--port={hub.port}", "--api-ip=127.0.0.1", f"--api-port={data.port('proxy')}"
    process = subprocess.Popen(
        [*program.command(), "--ip=127.0.0.1", *ports, "--log-level=warn"],
        env=os.environ | {"CONFIGPROXY_AUTH_TOKEN": data.secret("proxy")},
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_hub_waits_for_it_and_tells_it_routes_again(tmp_path):
    hub = RunningHub(tmp_path, config=_APART)
    hub.launch()
    wait_until(lambda: "Waiting for the proxy" in hub.log.read_text(), 120, "the Hub's question")
    assert not hub.answers()
    hub.stop()
    with proxy_of(hub):
        hub.start()
    try:
        with pytest.raises(OSError):
            request("GET", f"{hub.kaos}/health", timeout=5)
        with proxy_of(hub):
            wait_until(hub.answers, 10, "the routes' return")
    finally:
        hub.stop()
    assert "telling it all of them" in hub.log.read_text()
