"""The confinement of the builder's containers, and a test that builds work in it on a machine."""

from typing import TYPE_CHECKING, Any

from kaos_hub.engines import builder_image
from kaos_hub.engines.builder_environment import BUILDER_UID

if TYPE_CHECKING:
    from docker import DockerClient

_LOOK = (
    "for driver in overlay vfs; do"
    " buildah --storage-driver $driver --root /storage/$driver --runroot /storage/run info"
    " > /storage/said 2>&1 && echo $driver: && exit; done; echo none: $(tail -n 2 /storage/said)"
)


def narrow(seccomp: str) -> dict[str, Any]:
    """Return the confinement of a container of the builder, as arguments of its creation.

    Args:
        seccomp: the profile, as JSON.
    """
    return {
        "user": f"{BUILDER_UID}:{BUILDER_UID}",
        "init": True,
        "cap_drop": ["ALL"],
        # For newuidmap and newgidmap, which have them as capabilities of their files.
        "cap_add": ["SETUID", "SETGID"],
        "security_opt": [f"seccomp={seccomp}", "apparmor=unconfined"],
    }


def works(client: "DockerClient", image: str) -> tuple[str, str]:
    """Find the storage driver for layers of builds, and the builder's words if none works.

    Args:
        client: of the Engine.
        image: the builder.

    Returns:
        ``overlay``, ``vfs`` (slow: each layer is as large as the whole) or nothing; its words.
    """
    made = client.containers.create(
        image,
        ["/bin/sh", "-c", _LOOK],
        **narrow(builder_image.seccomp_profile(client, image)),
        mounts=[mounted("/storage")],
        network_mode="none",
    )
    try:
        made.start()
        made.wait(timeout=60)
        said = made.logs().decode(errors="replace").strip()
    finally:
        made.remove(v=True, force=True)
    driver, _, words = said.partition(":")
    return (driver, "") if driver in ("overlay", "vfs") else ("", words.strip() or said)


def mounted(target: str, source: str | None = None, read_only: bool = False) -> Any:
    """A volume as a container sees it; without a name it goes with the container."""
    from docker.types import Mount

    return Mount(target, source, "volume", read_only)
