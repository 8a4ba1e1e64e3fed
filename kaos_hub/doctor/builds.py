"""The checks of `kaos doctor` on image builds of a Docker Engine."""

from typing import TYPE_CHECKING

from kaos_hub.doctor.finding import BAD, GOOD, WEAK, Finding
from kaos_hub.engines import builder_image
from kaos_hub.engines.docker.builds.narrow import works
from kaos_hub.installation.datadir import DataDir
from kaos_hub.installation.logins import ENGINE, in_words, noted

if TYPE_CHECKING:
    from docker import DockerClient

_NAME = "docker builds"


def check(data: DataDir, client: "DockerClient") -> Finding:
    """Say which builder is in force, why, and whether it works on this machine.

    Args:
        data: the data directory.
        client: of the Engine.
    """
    settled = noted(data)
    if settled["builder"] == ENGINE:
        return Finding(_NAME, GOOD, in_words(settled))
    image = builder_image.reference()
    if not client.images.list(name=image):
        text = f"{in_words(settled)}; the builder is made when the hub starts"
        return Finding(_NAME, GOOD, text)
    driver, said = works(client, image)
    if driver == "overlay":
        return Finding(_NAME, GOOD, in_words(settled))
    if driver:
        text = "Layers of builds cannot lie over each other here: builds are slow and large."
        return Finding(_NAME, WEAK, text, "Docker's data must lie on ext4 or xfs (ftype=1).")
    return Finding(
        _NAME,
        BAD,
        f"Builds cannot run in containers of their own, so all fail: {said[:300]}",
        "The kernel must let processes without privileges make user namespaces"
        " (user.max_user_namespaces, kernel.unprivileged_userns_clone). Or, where only one person"
        " can log in: c.DockerEngine.builder = 'engine'.",
    )
