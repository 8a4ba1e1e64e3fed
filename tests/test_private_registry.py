"""Registries that want a login, with certificates of a CA of their own: real ones.

Not seen here: registries that give out tokens (`Bearer`).
"""

import asyncio
import contextlib
import json
import logging
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kaos_hub.doctor import kubernetes as checks
from kaos_hub.doctor.finding import BAD, GOOD
from kaos_hub.engines.base import Build, Cause, Observation, Phase, Run
from kaos_hub.engines.kubernetes.engine import KubernetesEngine
from kaos_hub.engines.kubernetes.pods import Pods
from kaos_hub.errors import EngineUnavailable, KaosError
from kaos_hub.registry.names import Reference, Ways
from kaos_hub.registry.registries import Registries
from kaos_hub.service.builds.diagnosis import explain_failure
from tests import private_registry as private
from tests.engine_cluster import kubectl, registry
from tests.pods import this_machine
from tests.private_registry import PASSWORDS, Authority, docker_config
from tests.test_engine_contract import (
    IMAGE,
    bundle,
    cluster,
    end,
    needs_kubernetes,
    output,
    texts,
)
from tests.test_engine_kubernetes import job, make, name
from tests.test_hostile_builds import SEARCH

__all__ = ["cluster", "make", "name"]

pytestmark = private.needed
Make = Callable[..., KubernetesEngine]
HERE = "127.0.0.1"
NOWHERE = "127.0.0.1:1"


def login(directory: Path, address: str, user: str, password: str = "") -> str:
    """A file as `docker login` writes it."""
    file = directory / f"{user}-{secrets.token_hex(2)}.json"
    file.write_text(docker_config(address, user, password))
    return str(file)


# --- what the service asks itself; no cluster needed ---


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def ca(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def here(directory: Path, ca: Authority) -> Iterator[str]:
    """A registry on this machine, with login and TLS, that has one small image."""
    with private.serving(directory, HERE, ca.issue(HERE)) as address:
        logins = {address: ("pusher", PASSWORDS["pusher"])}
        asked = Registries(Ways(ca=str(ca.certificate), logins=logins))
        asked.put_manifest(Reference(address, "a/b", "1"), small(asked, address))
        asked.close()
        yield address


def small(asked: Registries, address: str) -> bytes:
    """The manifest of an image of nothing, whose configuration is there."""
    import hashlib
    import io

    body = b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}'
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    asked.upload(Reference(address, "a/b"), digest, io.BytesIO(body), len(body))
    config = {"mediaType": "application/vnd.oci.image.config.v1+json"}
    config |= {"digest": digest, "size": len(body)}  # type: ignore[dict-item]
    return json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()


@contextlib.contextmanager
def service(tmp_path: Path, **more: Any) -> Iterator[KubernetesEngine]:
    """An engine that only asks registries."""
    engine = KubernetesEngine(data_dir=str(tmp_path / "data"), **more)
    yield engine
    asyncio.run(engine.close())


def test_a_tag_is_resolved_with_login_and_ca(tmp_path: Path, here: str, ca: Authority) -> None:
    file = login(tmp_path, here, "reader")
    with service(tmp_path, registry_login=file, registry_ca=str(ca.certificate)) as engine:
        pinned = asyncio.run(engine.resolve(f"{here}/a/b:1"))
        assert pinned.startswith(f"{here}/a/b@sha256:")
        assert asyncio.run(engine.has({"image": pinned}))
        assert not asyncio.run(engine.has({"image": f"{here}/a/b:2"}))


def refusal(tmp_path: Path, image: str, **more: Any) -> KaosError:
    """What the service says of an image that it cannot have."""
    began = time.monotonic()
    with service(tmp_path, **more) as engine, pytest.raises(KaosError) as caught:
        asyncio.run(engine.resolve(image))
    assert time.monotonic() - began < 8
    assert not [p for p in PASSWORDS.values() if p in str(caught.value.body())]
    return caught.value


def test_what_is_wrong_with_a_registry_is_said_with_what_to_do(
    tmp_path: Path, directory: Path, here: str, ca: Authority
) -> None:
    good, image = login(tmp_path, here, "reader"), f"{here}/a/b:1"
    trusted = {"registry_ca": str(ca.certificate)}
    other = Authority(tmp_path, "other").certificate

    said = refusal(tmp_path, image, **trusted)
    assert "wants a login" in said.message and "KubernetesEngine.registry_login" in said.message
    wrong = login(tmp_path, here, "reader", "canary-wrong")
    said = refusal(tmp_path, image, registry_login=wrong, **trusted)
    assert "does not accept our login" in said.message
    assert said.details == {"setting": "KubernetesEngine.registry_login"}
    assert "canary" not in said.message
    for more in ({}, {"registry_ca": str(other)}, {"registry_ca": "/nowhere"}):
        said = refusal(tmp_path, image, registry_login=good, **more)
        assert f"certificate of {here} is not trusted" in said.message
        assert "KubernetesEngine.registry_ca" in said.message
    said = refusal(tmp_path, image, registry_login=good, registry_ca=good)
    assert "holds no certificates" in said.message
    with private.serving(directory, HERE, ca.issue(HERE, days=-1)) as old:
        said = refusal(tmp_path, f"{old}/a/b:1", **trusted)
        assert "expired" in said.message and "renew" in said.message
    with private.serving(directory, HERE) as plain:
        said = refusal(tmp_path, f"{plain}/a/b:1", **trusted)
        assert "KubernetesEngine.insecure_registries" in said.message
        file = login(tmp_path, plain, "reader")
        with service(tmp_path, insecure_registries=[plain], registry_login=file) as engine:
            assert asyncio.run(engine.resolve(f"{plain}/a/b:1"))
    said = refusal(tmp_path, f"{NOWHERE}/a/b:1", **trusted)
    assert isinstance(said, EngineUnavailable)
    assert "does not answer" in said.message and said.message.endswith("Connection refused")


def test_the_doctor_knows_the_ca(here: str, ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAOS_REGISTRY", f"{here}/users")
    found = checks.registry()
    assert (found.state, found.advice) == (BAD, "Name its CA: docs/howto/private-registry.md")
    monkeypatch.setattr(checks, "CA", str(ca.certificate))
    found = checks.registry()
    assert (found.state, "wants a login" in found.text) == (GOOD, True)


def test_whether_an_image_is_there_is_not_guessed(tmp_path: Path, here: str, ca: Authority) -> None:
    """Else all would be built again and again as long as a password is wrong."""
    wrong = login(tmp_path, here, "reader", "canary-wrong")
    refused = pytest.raises(EngineUnavailable, match="does not accept our login")
    trusted = str(ca.certificate)
    with service(tmp_path, registry_login=wrong, registry_ca=trusted) as engine, refused:
        asyncio.run(engine.has({"image": f"{here}/a/b:1"}))


# --- on a cluster ---


@dataclass
class Parts:
    """Registries at an address of this machine that pods and the node reach."""

    directory: Path
    ca: Authority
    closed: str
    """With login and TLS."""
    open: str
    """With TLS only; the same images."""
    namespace: str

    @property
    def base(self) -> str:
        return f"{self.closed}/bases/python:1"

    def options(self, **more: Any) -> dict[str, Any]:
        found = {
            "registry": f"{self.closed}/users",
            "pull_registry": f"{self.closed}/users",
            "registry_login": login(self.directory, self.closed, "reader"),
            "registry_ca": str(self.ca.certificate),
            "ca_configmap": "ca",
            "push_secret": "push",
            "base_secret": "bases",
            "pull_secrets": ["pull"],
        }
        return found | more


def apply(namespace: str, kind: str, name: str, **content: Any) -> None:
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}
    kubectl("apply", "-f", "-", give=json.dumps(body | content))


@pytest.fixture(scope="module")
def parts(cluster: str, directory: Path, ca: Authority) -> Iterator[Parts]:
    host = this_machine()
    tls = ca.issue(host)
    with (
        private.serving(directory, host, tls) as closed,
        private.serving(directory, host, tls, login=False) as opened,
    ):
        parts = Parts(directory, ca, closed, opened, cluster)
        ways = Ways({"docker.io": registry()}, [registry()])
        ours = Ways(ca=str(ca.certificate), logins={closed: ("pusher", PASSWORDS["pusher"])})
        private.copy(Registries(ways), IMAGE, Registries(ours), Reference.parse(parts.base))
        apply(cluster, "ConfigMap", "ca", data={"ca.crt": ca.certificate.read_text()})
        other = Authority(directory, "other").certificate.read_text()
        apply(cluster, "ConfigMap", "other-ca", data={"ca.crt": other})
        private.login_secret(cluster, "push", docker_config(closed, "pusher"))
        private.login_secret(cluster, "bases", docker_config(closed, "reader"))
        private.login_secret(cluster, "pull", docker_config(closed, "reader"))
        private.login_secret(cluster, "wrong", docker_config(closed, "pusher", "canary-wrong"))
        yield parts


def a_name_for(namespace: str, name: str, address: str, port: int) -> None:
    """A name by which the cluster's pods find something outside of it."""
    ports = [{"port": port}]
    apply(namespace, "Service", name, spec={"clusterIP": "None", "ports": ports})
    subsets = [{"addresses": [{"ip": address}], "ports": ports}]
    apply(namespace, "Endpoints", name, subsets=subsets)


async def built(
    engine: KubernetesEngine, name: str, source: Path, *bases: str, seconds: int = 100
) -> Observation:
    pinned = {base: await engine.resolve(base) for base in bases}
    digest = engine.server.add(source)  # type: ignore[attr-defined]
    work = Build(digest, "k", f"kaos-hub/{name}:1", bases=pinned)
    await engine.submit(job(name, work, deadline=seconds))
    return await end(engine, name, seconds + 20)


def told(namespace: str, name: str) -> str:
    """All that a cluster tells of a pod: what it is, what it said at its end, events."""
    found = kubectl("get", "pods", "-n", namespace, "-o", "json", name)
    about = f"--field-selector=involvedObject.name={name}"
    return found + kubectl("get", "events", "-n", namespace, "-o", "json", about)


class TestOnACluster:
    pytestmark = needs_kubernetes

    @private.needs_node
    async def test_from_a_private_base_to_a_pod(
        self, make: Make, name: str, parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Resolved, fetched, built, pushed, pulled; and no password in the reach of the build."""
        caplog.set_level(logging.DEBUG)
        engine = make(**parts.options())
        steps = f"FROM {parts.base}\nCOPY search.py /\nRUN python3 /search.py\nCMD echo hello\n"
        source = bundle(tmp_path / "source", "", steps)
        (source / "model" / "search.py").write_text(SEARCH)
        seen = await built(engine, name, source, parts.base)
        lines = texts(await output(engine, name))
        assert seen.phase is Phase.SUCCEEDED, lines
        assert any(line.startswith(f"Fetching {parts.base}") for line in lines)
        assert "searched" in lines
        assert [line for line in lines if line.startswith("FOUND")] == []
        # Layers of the base are not sent again: the registry has them.
        assert sum(line.startswith("Pushing layer") for line in lines) == 1, lines
        assert not [line for line in lines if line.startswith("Copying layer")]
        assert await engine.has(seen.result)
        said = f"{lines}{seen}{caplog.text}{told(parts.namespace, name)}"
        await engine.remove(name)
        # What is known is only described.
        again = await built(engine, name, source, parts.base)
        assert again.result == seen.result
        assert not any("STEP" in line for line in texts(await output(engine, name)))
        await engine.remove(name)
        with private.trusted_by_node(parts.closed, parts.ca.certificate):
            await engine.submit(job(name, Run(("echo", "runs"), seen.result["image"])))
            assert (await end(engine, name)).phase is Phase.SUCCEEDED
            assert texts(await output(engine, name)) == ["runs"]
        said += told(parts.namespace, name)
        assert "canary-" not in said
        assert not [auth for auth in private.auths() if auth in said]

    @pytest.mark.parametrize(
        ("more", "base", "cause", "words"),
        [
            ({"push_secret": "wrong"}, "", Cause.CONFIGURATION, "does not accept our login"),
            ({"push_secret": ""}, "", Cause.CONFIGURATION, "wants a login"),
            ({"push_secret": "no"}, "", Cause.CONFIGURATION, "There is no secret"),
            ({"ca_configmap": "other-ca"}, "", Cause.CONFIGURATION, "is not trusted"),
            ({"ca_configmap": "no"}, "", Cause.ERROR, "There is no config map"),
            ({"registry": "down"}, "", Cause.TRANSFER, "does not answer"),
            ({"base_secret": "wrong"}, "closed", Cause.CONFIGURATION, "does not accept our login"),
            ({"base_secret": ""}, "closed", Cause.ERROR, "wants a login"),
            ({"ca_configmap": "other-ca"}, "open", Cause.ERROR, "is not trusted here"),
        ],
    )
    async def test_what_goes_wrong_is_said_with_what_to_do(
        self, make: Make, name: str, parts: Parts, tmp_path: Path,
        more: dict[str, Any], base: str, cause: Cause, words: str,
    ) -> None:  # fmt: skip
        """At its step, at once; what only an admin can help with is not tried again."""
        (setting,) = more
        if more[setting] == "down":
            with socket.create_server((this_machine(), 0)) as closed:
                more = {"registry": "{}:{}/users".format(*closed.getsockname())}
        image = {"closed": parts.base, "open": f"{parts.open}/bases/python:1"}.get(base, "scratch")
        steps = f"FROM {image}\nCOPY . /\n"
        engine = make(**parts.options(**more))
        seen = await built(engine, name, bundle(tmp_path / "source", "", steps), image)
        lines = texts(await output(engine, name))
        why = seen.message if cause is not Cause.ERROR else explain_failure(lines, lambda _: steps)
        assert (seen.phase, seen.cause) == (Phase.FAILED, cause), lines
        assert words in why
        assert cause is Cause.TRANSFER or f"KubernetesEngine.{setting}" in why
        assert "canary" not in f"{seen}{lines}{why}{told(parts.namespace, name)}"

    @private.needs_node
    async def test_a_node_without_certificate_and_one_without_password(
        self, make: Make, name: str, parts: Parts
    ) -> None:
        """What its nodes are told is the cluster's: a secret in the namespace, and a CA."""
        engine = make(**parts.options(pull_secrets=[]))

        async def pull(name: str, image: str) -> str:
            await engine.submit(job(name, Run(("true",), image)))
            seen = await end(engine, name)
            assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.MISSING_IMAGE)
            return seen.message

        with private.trusted_by_node(parts.closed, parts.ca.certificate):
            untrusted = f"{parts.open}/bases/python:1"
            said = await asyncio.gather(pull(name, untrusted), pull(f"{name}-2", parts.base))
        await engine.remove(f"{name}-2")
        assert "nodes trust its registry's CA" in said[0]
        assert "KubernetesEngine.pull_secrets" in said[1]

    @pytest.mark.parametrize("private_ca", [False, True])
    async def test_an_index_and_build_arguments_of_the_admin(
        self, make: Make, name: str, parts: Parts, tmp_path: Path, private_ca: bool
    ) -> None:
        """On a base whose registry wants no login: the build fetches it itself, and trusts it."""
        base = f"{parts.open}/bases/python:1"
        # What a base says of certificates itself is its own; this one is to say nothing.
        steps = (
            f"FROM {base}\nARG GREETING\nRUN rm -f /etc/pip.conf"
            " && env -u PIP_CERT -u SSL_CERT_FILE -u REQUESTS_CA_BUNDLE pip install kaosindexed"
            ' && python3 -c "import kaosindexed" && echo "said: $GREETING"\n'
        )
        source = bundle(tmp_path / "source", "", steps)
        host = this_machine()
        # To pip an address of numbers is none to check a certificate by.
        named = f"index.{parts.namespace}.svc" if private_ca else host
        tls = parts.ca.issue(named) if private_ca else None
        with private.package_index(tmp_path, host, "kaosindexed", "print('from it')", tls) as port:
            if private_ca:
                a_name_for(parts.namespace, "index", host, port)
            url = f"http{'s' if tls else ''}://{named}:{port}/simple/"
            more = {"pip_index_url": url, "build_args": {"GREETING": "good day = $HOME", "X": "y"}}
            engine = make(**parts.options(**more))
            seen = await built(engine, name, source, base)
        lines = texts(await output(engine, name))
        assert seen.phase is Phase.SUCCEEDED, "\n".join(lines[-20:])
        assert "from it" in lines
        assert "said: good day = $HOME" in lines


def test_how_pip_is_configured(tmp_path: Path) -> None:
    def conf(**more: Any) -> str:
        engine = KubernetesEngine(data_dir=str(tmp_path), registry="r/x", **more)
        work = Build("blake3:" + "a" * 64, "k", "kaos-hub/o:k")
        pods: Pods = engine.pods
        steps = pods.build(job("kaos-build-1", work), work, known=False)["spec"]["initContainers"]
        return str(next(e["value"] for e in steps[1]["env"] if e["name"] == "KAOS_PIP"))

    assert conf() == ""
    plain = conf(pip_index_url="http://i.example:8080/simple/")
    assert "index-url = http://i.example:8080/simple/\ntrusted-host = i.example:8080\n" in plain
    assert "trusted" not in conf(pip_index_url="https://i.example/simple/", ca_configmap="ca")
    assert "cert = /etc/xdg/pip/ca.crt" in conf(ca_configmap="ca")
