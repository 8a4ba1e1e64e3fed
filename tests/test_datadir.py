"""The data directory: one place, closed to others, remembering secrets and ports."""

import multiprocessing
import os
import socket
import stat
from pathlib import Path

import pytest

from kaos_hub.errors import Conflict, InvalidName, KaosError
from kaos_hub.installation.datadir import DataDir
from kaos_hub.installation.ports import is_free


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_default_follows_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KAOS_DATA_DIR", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert DataDir(create=False).path == tmp_path / "home/.local/share/kaos_hub"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert DataDir(create=False).path == tmp_path / "xdg/kaos_hub"
    monkeypatch.setenv("KAOS_DATA_DIR", str(tmp_path / "own"))
    assert DataDir(create=False).path == tmp_path / "own"
    assert not (tmp_path / "own").exists()


def test_everything_is_closed_to_others(tmp_path):
    old = os.umask(0)
    try:
        data = DataDir(tmp_path / "a" / "b")
        data.secret("admission")
    finally:
        os.umask(old)
    assert mode(data.path) == 0o700
    assert mode(data.secrets) == 0o700
    assert mode(data.secrets / "admission") == 0o600


def test_widened_directory_is_closed_again(tmp_path):
    tmp_path.chmod(0o755)
    assert mode(DataDir(tmp_path).path) == 0o700


def test_unusable_path_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KaosError, match="--data-dir"):
        DataDir(tmp_path / "file")


def test_secret_is_made_once(tmp_path):
    data = DataDir(tmp_path)
    assert not data.has_secret("proxy")
    first = data.secret("proxy")
    assert len(bytes.fromhex(first)) == 32
    assert DataDir(tmp_path).secret("proxy") == first != data.secret("cookie")
    assert data.has_secret("proxy")
    assert [p.name for p in data.secrets.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["", "../x", "A", ".hidden", "a/b"])
def test_secret_name_stays_inside(tmp_path, name):
    with pytest.raises(InvalidName):
        DataDir(tmp_path).secret(name)


def test_empty_secret_is_not_used(tmp_path):
    data = DataDir(tmp_path)
    (data.secrets / "proxy").write_text("\n")
    with pytest.raises(KaosError, match="empty"):
        data.secret("proxy")


def ask(path: Path, role: str) -> tuple[str, int]:
    data = DataDir(path)
    return data.secret("shared"), data.port(role)


def test_many_askers_agree(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        answers = pool.starmap(ask, [(tmp_path, f"role-{i % 3}") for i in range(24)])
    assert len({secret for secret, _ in answers}) == 1
    assert len({port for _, port in answers}) == 3


def test_port_is_remembered_even_when_taken(tmp_path):
    data = DataDir(tmp_path)
    port = data.port("hub")
    assert is_free("127.0.0.1", port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not is_free("127.0.0.1", port)
        assert DataDir(tmp_path).port("hub") == port
        assert data.port("service") != port


def test_preferred_port_is_taken_if_free(tmp_path):
    data = DataDir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        assert data.port("a", prefer=busy) != busy
    assert data.port("b", prefer=busy) == busy
    data.set_port("b", 4321)
    assert data.port("b", prefer=busy) == 4321


def test_damaged_ports_are_explained(tmp_path):
    data = DataDir(tmp_path)
    data.ports.write_text("[1]")
    with pytest.raises(KaosError, match=r"ports\.json"):
        data.port("hub")


def test_lock_is_exclusive_and_names_the_holder(tmp_path):
    data = DataDir(tmp_path)
    with data.hold(), pytest.raises(Conflict) as refused:
        DataDir(tmp_path).hold()
    assert refused.value.details == {"pid": os.getpid()}
    data.hold().close()


def test_lock_dies_with_its_process(tmp_path):
    data = DataDir(tmp_path)
    process = multiprocessing.get_context("fork").Process(target=lambda: (data.hold(), os._exit(9)))
    process.start()
    process.join()
    assert process.exitcode == 9
    data.hold().close()  # raises Conflict while somebody holds it


def test_secrets_of_others_are_read_and_never_made(monkeypatch, tmp_path):
    provided = tmp_path / "provided"
    provided.mkdir()
    (provided / "admission").write_text("given\n")
    monkeypatch.setenv("KAOS_SECRETS_DIR", str(provided))
    data = DataDir(tmp_path / "data")
    assert data.secret("admission") == "given"
    assert data.has_secret("admission") and not data.has_secret("cookie")
    with pytest.raises(KaosError, match=r"'cookie' is not in .*provided.*helm upgrade"):
        data.secret("cookie")
    assert [p.name for p in provided.iterdir()] == ["admission"]
    assert not (tmp_path / "data" / "secrets").exists()
