"""The runtime over real images: whatever Python they have or have not, they become notebooks."""

import contextlib
import io
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from kaos_hub.engines import runtime_image

pytestmark = pytest.mark.docker

RUNTIME = runtime_image.current()
UID = 1000
TOKEN = "only-for-this-test"

OLD_PINS = """
FROM python:3.11-slim
RUN pip install --no-cache-dir traitlets==4.3.3 tornado==5.1.1 pydantic==1.10.13
"""
VENV = """
FROM python:3.11-slim
RUN pip install --no-cache-dir uv && uv venv --seed /venv && pip uninstall -y uv
ENV PATH=/venv/bin:$PATH
"""
NO_PYTHON = """
FROM debian:bookworm-slim
RUN cd /usr && rm -rf bin/python* bin/pip* lib/python* local/bin/python* local/lib/python*
"""
NOTHING = """
FROM debian:bookworm-slim AS from
FROM scratch
COPY --from=from /etc/hostname /
"""
UNFRIENDLY = """
FROM python:3.13-slim
RUN useradd --uid 1000 --create-home ada && mkdir /own
RUN echo "raise SystemExit" > /own/jupyterlab.py && echo "nothing" > /own/libffi.so.8
ENV PYTHONPATH=/own PYTHONHOME=/usr LD_PRELOAD=/own/libffi.so.8 \
    JUPYTER_CONFIG_DIR=/config JUPYTER_DATA_DIR=/root/data JUPYTER_RUNTIME_DIR=/root/run \
    IPYTHONDIR=/root/ipython XDG_DATA_HOME=/root XDG_CONFIG_HOME=/root XDG_CACHE_HOME=/root \
    SHELL=/usr/sbin/nologin TMPDIR=/root BASH_ENV=/root/none OPENSSL_CONF=/proc/version \
    SSL_CERT_FILE=/none HTTPS_PROXY=http://127.0.0.1:9 LC_ALL=tlh_XX LD_BIND_NOW=1 \
    JUPYTERHUB_SINGLEUSER_APP=none KAOS_PYTHON=/own/none
RUN mkdir /config
USER ada
WORKDIR /own
ENTRYPOINT ["/bin/false"]
"""


@pytest.fixture(scope="session")
def docker_client() -> Iterator[Any]:
    docker = pytest.importorskip("docker")
    try:
        client = docker.from_env(timeout=300)
        client.ping()
    except docker.errors.DockerException as e:
        pytest.skip(f"needs a Docker Engine: {e}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def runtime(docker_client: Any) -> str:
    return runtime_image.ensure(docker_client, print, RUNTIME)


def build(client: Any, dockerfile: str) -> str:
    image, _ = client.images.build(fileobj=io.BytesIO(dockerfile.encode()), rm=True, forcerm=True)
    return str(image.id)


@dataclass
class Lab:
    """A JupyterLab of the runtime in a container."""

    container: Any
    url: str
    started: float
    """Seconds from the container's start to Lab's first answer."""

    def get(self, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if body else None
        request = Request(self.url + path, data=data, headers={"Authorization": f"token {TOKEN}"})
        with urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def kernel(self) -> "Kernel":
        return Kernel(self)

    def terminal(self, command: str) -> str:
        """The last line that a command writes in a terminal."""
        import websocket

        name = self.get("/api/terminals", cwd="")["name"]
        address = self.url.replace("http", "ws", 1) + f"/terminals/websocket/{name}"
        socket = websocket.create_connection(
            address, header={"Authorization": f"token {TOKEN}"}, timeout=60
        )
        socket.send(json.dumps(["stdin", f"{command}; exit\r"]))
        written = ""
        while (answer := json.loads(socket.recv()))[0] != "disconnect":
            written += answer[1] if answer[0] == "stdout" else ""
        lines = [line.strip() for line in written.splitlines()]
        return [line for line in lines if line and line != "exit"][-1]

    def log(self) -> str:
        return str(self.container.logs().decode(errors="replace"))


class Kernel:
    """A running kernel of a :class:`Lab`, spoken to as the browser does."""

    def __init__(self, lab: Lab) -> None:
        import websocket

        model = lab.get("/api/kernels", name="python3")
        self.socket = websocket.create_connection(
            lab.url.replace("http", "ws", 1) + f"/api/kernels/{model['id']}/channels",
            header={"Authorization": f"token {TOKEN}"},
            timeout=60,
        )

    def send(self, channel: str, kind: str, content: dict[str, Any]) -> str:
        header = {
            "msg_id": uuid.uuid4().hex, "msg_type": kind, "version": "5.3",
            "session": "s", "username": "ada", "date": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        message = {
            "channel": channel, "header": header, "parent_header": {}, "metadata": {},
            "content": content, "buffers": [],
        }  # fmt: skip
        self.socket.send(json.dumps(message))
        return header["msg_id"]

    def debug(self, command: str) -> dict[str, Any]:
        """What the kernel's debugger answers to a command."""
        content = {"type": "request", "seq": 1, "command": command, "arguments": {}}
        sent = self.send("control", "debug_request", content)
        while True:
            answer = json.loads(self.socket.recv())
            if answer["msg_type"] == "debug_reply" and answer["parent_header"]["msg_id"] == sent:
                return dict(answer["content"])

    def run(self, code: str) -> str:
        """All that the cell writes, its errors too."""
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        sent = self.send("shell", "execute_request", content)
        written = ""
        while True:
            answer = json.loads(self.socket.recv())
            if answer["parent_header"].get("msg_id") != sent:
                continue
            if answer["msg_type"] == "stream":
                written += answer["content"]["text"]
            elif answer["msg_type"] == "error":
                written += "\n".join(answer["content"]["traceback"])
            elif answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
                return written


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    if os.getuid() == 0:
        os.chown(path, UID, UID)
    return path


@contextlib.contextmanager
def lab(client: Any, runtime: str, image: str, home: Path, **environment: str) -> Iterator[Lab]:
    begun = time.monotonic()
    container = client.containers.run(
        image,
        entrypoint="",
        command=[
            "/opt/kaos/bin/jupyter-lab", "--no-browser", "--ip=0.0.0.0", "--port=8888",
            f"--IdentityProvider.token={TOKEN}", "--ServerApp.root_dir=/home/kaos",
        ],
        detach=True,
        user=str(UID if os.getuid() == 0 else os.getuid()),
        environment={
            "HOME": "/home/kaos",
            "KAOS_PACKAGES": "/home/kaos/.kaos/packages/key",
            **environment,
        },
        volumes={
            runtime: {"bind": "/opt/kaos", "mode": "ro"},
            str(home): {"bind": "/home/kaos", "mode": "rw"},
        },
        ports={"8888/tcp": ("127.0.0.1", None)},
    )  # fmt: skip
    try:
        container.reload()
        port = container.ports["8888/tcp"][0]["HostPort"]
        url = f"http://127.0.0.1:{port}"
        wait_for(url, container)
        yield Lab(container, url, time.monotonic() - begun)
    finally:
        container.remove(force=True)


def wait_for(url: str, container: Any) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urlopen(f"{url}/lab?token={TOKEN}", timeout=5) as answer:
                assert answer.status == 200
                return
        except (URLError, OSError):
            if time.monotonic() > deadline:
                pytest.fail(container.logs().decode(errors="replace"))
            time.sleep(0.05)


WHO = "import sys; print(sys.executable, sys.version_info[:2])"
FREEZE = (
    "import subprocess, sys;"
    "print(subprocess.run([sys.executable, '-m', 'pip', 'freeze'],"
    " capture_output=True, text=True).stdout)"
)


@pytest.mark.parametrize(
    ("image", "minor"), [("python:3.13-slim", "(3, 13)"), ("python:3.11-slim", "(3, 11)")]
)
def test_the_kernel_is_the_python_of_the_image(
    docker_client: Any, runtime: str, home: Path, image: str, minor: str
) -> None:
    before = docker_client.containers.run(image, ["pip", "freeze"], remove=True).decode()
    with lab(docker_client, runtime, image, home) as running:
        begun = time.monotonic()
        kernel = running.kernel()
        said = kernel.run(WHO)
        first_cell = time.monotonic() - begun
        print(f"{image}: Lab after {running.started:.2f} s, first cell {first_cell:.2f} s")
        assert minor in said
        assert "/opt/kaos" not in said
        assert kernel.run(FREEZE).split() == before.split()
        assert "/opt/kaos" in kernel.run("!which kaos")
        assert kernel.debug("initialize")["success"] is True


def test_what_a_cell_installs_is_there_at_once_and_after_a_restart(
    docker_client: Any, runtime: str, home: Path
) -> None:
    for image in ("python:3.13-slim", build(docker_client, VENV)):
        where = "import humanize; print(humanize.__version__, humanize.__file__)"
        with lab(docker_client, runtime, image, home) as running:
            kernel = running.kernel()
            assert "ModuleNotFoundError" in kernel.run(where)
            out = kernel.run("!pip install -q humanize==4.9.0")
            assert "4.9.0 /home/kaos/.kaos" in kernel.run(where), out + running.log()
            freeze = kernel.run(FREEZE)
            assert "humanize==4.9.0" in freeze
            assert "ipykernel" not in freeze
            assert "4.9.0" in kernel.run(
                "!python -c 'import humanize; print(humanize.__version__)'"
            )
        with lab(docker_client, runtime, image, home) as running:
            kernel = running.kernel()
            assert "4.9.0 /home/kaos/.kaos" in kernel.run(where)
            # an upgrade of what the home holds, and a program that comes with a package
            out = kernel.run("!pip install -q humanize==4.10.0 tabulate==0.9.0")
            assert "4.10.0" in kernel.run(
                "!python -c 'import humanize; print(humanize.__version__)'"
            ), out
            assert "/home/kaos/.kaos" in kernel.run("!which tabulate")
        with lab(
            docker_client, runtime, image, home, KAOS_PACKAGES="/home/kaos/.kaos/packages/other"
        ) as running:
            assert "ModuleNotFoundError" in running.kernel().run(where)


def test_old_pins_keep_their_versions_outside_the_kernel(
    docker_client: Any, runtime: str, home: Path
) -> None:
    image = build(docker_client, OLD_PINS)
    with lab(docker_client, runtime, image, home) as running:
        kernel = running.kernel()
        assert "6." in kernel.run("import tornado; print(tornado.version)")
        assert "5.1.1" in kernel.run("!python -c 'import tornado; print(tornado.version)'")
        replaced = kernel.run("import os; print(os.environ['KAOS_KERNEL_REPLACED'])")
        assert "tornado" in replaced
        assert "instead of 4.3.3" in replaced
        assert "instead of 4.3.3" in running.log()
        assert "traitlets==4.3.3" in kernel.run(FREEZE)


def test_an_image_with_nothing_in_it(docker_client: Any, runtime: str, home: Path) -> None:
    image = build(docker_client, NOTHING)
    with lab(docker_client, runtime, image, home) as running:
        kernel = running.kernel()
        assert "/opt/kaos" in kernel.run(WHO)
        assert "1.0" in kernel.run("import sqlite3, ssl, ctypes; print(1.0)")


def test_an_image_without_python_gets_the_python_of_the_runtime(
    docker_client: Any, runtime: str, home: Path
) -> None:
    image = build(docker_client, NO_PYTHON)
    with lab(docker_client, runtime, image, home) as running:
        spec = running.get("/api/kernelspecs")["kernelspecs"]["python3"]["spec"]
        assert "this image has no Python" in spec["display_name"]
        kernel = running.kernel()
        assert "/opt/kaos" in kernel.run(WHO)
        assert "this image has no Python" in running.log()
        out = kernel.run("!pip install -q humanize==4.9.0")
        assert "4.9.0" in kernel.run("import humanize; print(humanize.__version__)"), out


def test_what_the_image_sets_is_for_its_own_programs(
    docker_client: Any, runtime: str, home: Path
) -> None:
    image = build(docker_client, UNFRIENDLY)
    with lab(docker_client, runtime, image, home) as running:
        begun = running.container.exec_run(
            ["sh", "-c", "tr '\\0' '\\n' < /proc/1/environ"], environment={"LD_PRELOAD": ""}
        ).output.decode()
        assert "KAOS_USER_LD_PRELOAD=/own/libffi.so.8" in begun.split()
        assert "JUPYTER_CONFIG_DIR" not in [word.partition("=")[0] for word in begun.split()]
        assert "LD_PRELOAD=/own/libffi.so.8" not in begun.split()
        kernel = running.kernel()
        environ = kernel.run("import os; print(os.getuid(), dict(os.environ))")
        assert environ.startswith("1000 ")
        for variable in ("'LD_PRELOAD': '/own/libffi.so.8'", "'PYTHONHOME': '/usr'"):
            assert variable in environ
        assert "'PYTHONPATH': '/own'" in environ
        assert "'JUPYTER_CONFIG_DIR': '/config'" in environ
        assert "KAOS_USER_" not in environ
        assert "SystemExit" in kernel.run("import jupyterlab")
        assert "IPYTHONDIR=/root/ipython cannot be written" in running.log()
        assert running.terminal("echo at=$JUPYTER_DATA_DIR") == "at=/root/data"
    with lab(docker_client, runtime, image, home) as again:  # where a kernel was before
        assert again.kernel().run("print(6 * 7)") == "42\n"


def test_the_sdk_and_the_command_are_there_and_replace_nothing(
    docker_client: Any, runtime: str, home: Path
) -> None:
    use = "from kaos_hub import Client; print(Client)"
    with lab(docker_client, runtime, "python:3.11-slim", home) as running:
        kernel = running.kernel()
        assert "class 'kaos_hub.client" in kernel.run(use)
        assert "version" in kernel.run("!kaos --version")
    with lab(docker_client, runtime, build(docker_client, OLD_PINS), home) as running:
        kernel = running.kernel()
        assert "cannot work with pydantic 1.10.13" in kernel.run(use)
        assert "1.10.13" in kernel.run("import pydantic; print(pydantic.VERSION)")
        assert "version" in kernel.run("!kaos --version")


def test_a_volume_left_half_filled_is_filled_again(docker_client: Any, runtime: str) -> None:
    def inside(*command: str) -> str:
        return str(
            docker_client.containers.run(
                "python:3.13-slim",
                list(command),
                remove=True,
                volumes={runtime: {"bind": "/opt/kaos", "mode": "rw"}},
            ).decode()
        )

    inside("rm", "-r", "/opt/kaos/.complete", "/opt/kaos/bin", "/opt/kaos/kernel")
    assert runtime_image.ensure(docker_client, print, RUNTIME) == runtime
    assert inside("/opt/kaos/bin/jupyter-lab", "--version").startswith("4.")


def test_old_runtimes_go_but_none_in_use(
    docker_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a label of its own: other runtimes of this machine are none of this test's business
    monkeypatch.setattr(runtime_image, "LABEL", f"kaos.test-{uuid.uuid4().hex}")
    old = docker_client.volumes.create(labels={runtime_image.LABEL: "0.0.0-old"})
    kept = docker_client.volumes.create(labels={runtime_image.LABEL: "0.0.0-used"})
    user = docker_client.containers.create(
        "python:3.13-slim", volumes={kept.name: {"bind": "/opt/kaos", "mode": "ro"}}
    )
    try:
        assert old.name not in runtime_image.prune(docker_client)
        gone = runtime_image.prune(docker_client, older=-60)
        assert old.name in gone
        assert kept.name not in gone
    finally:
        user.remove()
        kept.remove()
