"""A package index of the admin's own, for builds on Docker: with and without a CA of its own."""

from pathlib import Path

import pytest

from kaos_hub.deployment.docker_bridge import bridge
from kaos_hub.engines.base import Phase
from tests.attacks.test_builds_docker import ALICE, Hub
from tests.private_registry import Authority, package_index
from tests.test_engine_contract import needs_docker

pytestmark = needs_docker
NAME = "index.example"
"""The index's. To pip an address of numbers is none to check a certificate by."""


def step() -> str:
    """A line that installs from the index. There is no name server here that knows it."""
    return (
        f"RUN echo {bridge()} {NAME} >> /etc/hosts &&"
        " env -u PIP_CERT -u SSL_CERT_FILE -u REQUESTS_CA_BUNDLE -u PIP_FIND_LINKS"
        ' pip install --disable-pip-version-check kaosindexed && python -c "import kaosindexed"'
    )


@pytest.mark.parametrize("private_ca", [False, True])
async def test_builds_install_from_it(tmp_path: Path, private_ca: bool) -> None:
    ca = Authority(tmp_path)
    tls = ca.issue(NAME) if private_ca else None
    with package_index(tmp_path, bridge(), "kaosindexed", "print('from it')", tls) as port:
        hub = Hub(
            tmp_path / "data",
            reachable=[f"{bridge()}:{port}"],
            pip_index_url=f"http{'s' if tls else ''}://{NAME}:{port}/simple/",
            ca_file=str(ca.certificate) if tls else "",
        )
        try:
            seen, said = await hub.build(ALICE, "RUN rm -f /etc/pip.conf", step())
        finally:
            await hub.close()
    assert seen.phase is Phase.SUCCEEDED, "\n".join(said[-20:])
    assert "from it" in said


async def test_without_its_ca_the_build_says_so(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    tls = ca.issue(NAME)
    with package_index(tmp_path, bridge(), "kaosindexed", "print('from it')", tls) as port:
        hub = Hub(
            tmp_path / "data",
            reachable=[f"{bridge()}:{port}"],
            pip_index_url=f"https://{NAME}:{port}/simple/",
        )
        try:
            seen, said = await hub.build(ALICE, "RUN rm -f /etc/pip.conf", step())
        finally:
            await hub.close()
    assert seen.phase is Phase.FAILED
    assert "CERTIFICATE_VERIFY_FAILED" in "\n".join(said)
