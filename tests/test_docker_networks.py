"""Owners' networks on a Docker Engine: made once, shut in at all times, gone when unused."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from kaos_hub.engines.base import JobSpec, Phase, Run
from kaos_hub.engines.docker.engine import DockerEngine
from kaos_hub.engines.docker.networks import guard as docker_guard
from kaos_hub.engines.docker.networks.networks import SHARED, DockerNetworks
from kaos_hub.engines.docker.networks.rules import parse_target, resolvers
from kaos_hub.engines.docker.networks.subnets import first_free, of_routes
from kaos_hub.errors import Unsupported
from tests.hub import wait_until
from tests.networks import dismiss
from tests.test_engine_contract import IMAGE, end, needs_docker

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


class TestSubnets:
    def test_what_is_in_use_is_left_out(self) -> None:
        used = [*of_routes(ROUTES)]
        assert [str(network) for network in used] == ["172.17.0.0/16"]
        assert str(first_free("172.16.0.0/14", 16, used)) == "172.16.0.0/16"
        assert str(first_free("172.17.0.0/16", 26, [])) == "172.17.0.0/26"

    def test_an_exhausted_pool_says_what_to_do(self) -> None:
        with pytest.raises(Unsupported, match=r"c\.DockerNetworks\.pool"):
            first_free("172.17.0.0/16", 26, of_routes(ROUTES))

    @pytest.mark.parametrize(
        ("pool", "size"), [("10.0.0.0/33", 26), ("x", 26), ("fd00::/64", 80), ("10.0.0.1/16", 26),
                           ("10.0.0.0/28", 26), ("10.0.0.0/28", 30)],
    )  # fmt: skip
    def test_nonsense_is_refused(self, pool: str, size: int) -> None:
        with pytest.raises(Unsupported, match=r"c\.DockerNetworks"):
            first_free(pool, size, [])


class TestRules:
    @pytest.mark.parametrize(
        ("text", "rules"),
        [
            ("10.1.2.3", ["ip daddr 10.1.2.3/32 accept"]),
            ("10.1.2.3/16", ["ip daddr 10.1.0.0/16 accept"]),
            ("10.1.2.3:80", ["ip daddr 10.1.2.3/32 tcp dport 80 accept",
                             "ip daddr 10.1.2.3/32 udp dport 80 accept"]),
        ],
    )  # fmt: skip
    def test_targets(self, text: str, rules: list[str]) -> None:
        assert parse_target(text).rules == rules

    @pytest.mark.parametrize(
        "text", ["", "db", "10.1.2", "10.1.2.3:0", "10.1.2.3:99999", "::1", "[::1]:80",
                 "10.1.2.3/33", "10.1.2.3 accept", "10.1.2.3:80;", "0x0a.1.1.1", "10.1.2.3:"],
    )  # fmt: skip
    def test_what_is_no_target_is_refused(self, text: str) -> None:
        with pytest.raises(Unsupported, match=r"c\.DockerNetworks\.reachable"):
            parse_target(text)

    def test_name_servers_are_read_from_the_machine(self) -> None:
        told = "# x\nsearch a\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fd00::1\n"
        assert resolvers([told, "nameserver 10.0.0.2\nnameserver 1.1.1.1\nnameserver\n"]) == [
            "1.1.1.1",
            "10.0.0.2",
        ]


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[DockerNetworks]:
    yield DockerNetworks(data_dir=str(tmp_path / "data"), hub_addresses=["http://172.17.0.1:2"])
    dismiss(tmp_path / "data")


def delete_rules(networks: DockerNetworks, client: docker.DockerClient) -> None:
    """What a reboot or ``nft flush ruleset`` does to them."""
    image = client.containers.get(f"kaos-guard-{networks.hub}").image.id
    client.containers.run(
        image,
        ["nft", "delete", "table", "inet", f"kaos_{networks.hub}"],
        network_mode="host",
        cap_add=["NET_ADMIN"],
        remove=True,
    )


class TestNetworks:
    pytestmark = needs_docker

    def test_owners_have_one_each_whoever_asks(self, networks: DockerNetworks) -> None:
        """Twenty at once, in two processes, as Hub and service are."""
        program = (
            "import sys; from kaos_hub.engines.docker.networks.networks import DockerNetworks;"
            "print(DockerNetworks(data_dir=sys.argv[1], hub_addresses=['http://172.17.0.1:2'])"
            ".ensure_now('user:ada'))"
        )
        command = [sys.executable, "-c", program, networks.data_dir]
        with ThreadPoolExecutor(6) as pool:
            there = [pool.submit(subprocess.check_output, command, text=True) for _ in range(2)]
            here = [pool.submit(networks.ensure_now, f"user:{n}") for n in ("ada", "bob") * 4]
            names = {f.result().strip() for f in there} | {f.result() for f in here}
        assert names == {networks.name("user:ada"), networks.name("user:bob")}
        assert networks.name("user:ada") != networks.name("user:bob")

    def test_they_go_when_nothing_runs_in_them(
        self, networks: DockerNetworks, client: docker.DockerClient
    ) -> None:
        name = networks.ensure_now("user:ada")
        assert networks.sweep(client) == []  # somebody may be about to start something
        made = client.containers.create(IMAGE, ["sleep", "60"], network=name)
        try:
            assert networks.sweep(client, older=0) == []  # it is going to be started
            made.start()
            assert networks.sweep(client, older=0) == []
            made.kill()
            made.wait()
            assert networks.sweep(client, older=0) == [name]
        finally:
            made.remove(force=True)
        assert networks.ensure_now("user:ada") == name

    def test_what_is_left_of_a_hub_can_be_taken_away(
        self, networks: DockerNetworks, client: docker.DockerClient
    ) -> None:
        networks.ensure_now("user:ada")
        assert networks.in_force(client)
        networks.dismiss()
        assert networks.networks(client) == []
        assert not networks.in_force(client)
        networks.dismiss()

    def test_lost_rules_come_back_by_themselves(
        self, networks: DockerNetworks, client: docker.DockerClient
    ) -> None:
        networks.ensure_now("user:ada")
        delete_rules(networks, client)
        wait_until(lambda: networks.in_force(client), 10, "the rules")

    def test_lost_rules_and_guard_come_back_before_anything_starts(
        self, networks: DockerNetworks, client: docker.DockerClient
    ) -> None:
        networks.ensure_now("user:ada")
        guard = client.containers.get(f"kaos-guard-{networks.hub}")
        guard.update(restart_policy={"Name": "no"})
        guard.kill("SIGUSR1")
        client.api.remove_container(f"kaos-guard-{networks.hub}", force=True)
        assert not networks.in_force(client)
        networks.ensure_now("user:ada")
        assert networks.in_force(client)

    async def test_nothing_starts_where_the_rules_are_not_in_force(
        self,
        networks: DockerNetworks,
        client: docker.DockerClient,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The guard is deaf and the rules are gone: work is refused, and goes on afterwards."""
        monkeypatch.setattr(docker_guard, "_PATIENCE", 2)
        engine = DockerEngine(data_dir=networks.data_dir, stop_grace=1)
        engine.__dict__["networks"] = networks
        spec = JobSpec("kaos-train-unshut", "user:ada", Run(("true",), image=IMAGE))
        networks.ensure_now("user:ada")
        guard = client.containers.get(f"kaos-guard-{networks.hub}")
        guard.pause()
        try:
            delete_rules(networks, client)
            with pytest.raises(Unsupported, match="not in force"):
                await engine.submit(spec)
            assert (await engine.observe(spec.name)).phase is Phase.ABSENT
        finally:
            guard.unpause()
        await engine.submit(spec)
        assert (await end(engine, spec.name)).phase is Phase.SUCCEEDED
        await engine.remove(spec.name)
        await engine.close()

    def test_rules_that_cannot_be_made_are_said(self, tmp_path: Path) -> None:
        networks = DockerNetworks(data_dir=str(tmp_path / "data"), firewall_image=IMAGE)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(docker_guard, "_PATIENCE", 2)
                with pytest.raises(Unsupported, match="nft: not found"):
                    networks.ensure_now("user:ada")
        finally:
            dismiss(tmp_path / "data")

    def test_a_pool_that_is_used_up_refuses_and_is_free_again(
        self, networks: DockerNetworks, client: docker.DockerClient
    ) -> None:
        networks.pool, networks.size = "10.214.77.0/28", 29
        networks.ensure_now("user:1")
        networks.ensure_now("user:2")
        with pytest.raises(Unsupported, match="address range"):
            networks.ensure_now("user:3")
        assert networks.ensure_now("user:1")
        assert len(networks.sweep(client, older=0)) == 2
        networks.ensure_now("user:3")

    def test_another_network_of_that_name_is_not_taken(
        self, networks: DockerNetworks, client: docker.DockerClient
    ) -> None:
        name = networks.name("user:ada")
        made = client.networks.create(name, labels={"kaos_hub.owner": "user:ada"})
        try:
            with pytest.raises(Unsupported, match=f"docker network rm {name}"):
                networks.ensure_now("user:ada")
        finally:
            made.remove()

    def test_changed_settings_change_the_rules(
        self, networks: DockerNetworks, client: docker.DockerClient
    ) -> None:
        networks.ensure_now("user:ada")
        networks.reachable = ["10.1.2.3:5432"]
        assert not networks.in_force(client)
        networks.ensure_now("user:ada")
        assert networks.in_force(client)

    def test_an_admin_may_do_without(self, tmp_path: Path) -> None:
        networks = DockerNetworks(data_dir=str(tmp_path / "data"), isolate=False)
        assert networks.ensure_now("user:ada") == SHARED
        assert "share one network" in networks.problems()[0]
