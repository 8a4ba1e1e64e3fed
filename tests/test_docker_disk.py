"""How full the disk of a build gets, as seen from outside of its container."""

import time
import uuid

from kaos_hub.engines.docker import client as engine
from kaos_hub.engines.docker.disk import Disk
from kaos_hub.engines.docker.leftovers import measuring
from tests.test_engine_contract import IMAGE, needs_docker

pytestmark = needs_docker

_CHURN = """while :; do seq -f /storage/%g/a/b 400 | xargs mkdir -p; rm -rf /storage/*; done"""


def test_files_that_go_away_while_they_are_measured_do_not_end_a_build() -> None:
    client, name = engine.connect(60), f"kaos-churn-{uuid.uuid4().hex[:8]}"
    volumes = {f"{name}-{k}": {"bind": f"/{k}", "mode": "rw"} for k in ("storage", "cache", "out")}
    client.containers.run(
        IMAGE, ["/bin/sh", "-c", _CHURN], name=name, user="0:0", detach=True, volumes=volumes
    )
    disk, until = Disk(client, IMAGE, name, 50 << 30, {}), time.monotonic() + 60
    try:
        with disk.watched():
            complaints = b""
            while b"cannot access" not in complaints and time.monotonic() < until:
                complaints = client.api.logs(measuring(name), stdout=False)
                time.sleep(0.5)
            time.sleep(4)  # another line of numbers is read
            assert b"cannot access" in complaints
            assert not disk.full
            assert client.api.inspect_container(name)["State"]["Running"]
    finally:
        client.api.remove_container(name, force=True)
        for volume in volumes:
            client.api.remove_volume(volume, force=True)
