"""Between spawner and service, never through the proxy."""

from typing import Any

from pydantic import Field

from kaos_hub.schemas.base import Model
from kaos_hub.schemas.resources import Resources
from kaos_hub.schemas.words import Digest, Owner


class Mount(Model):
    """Something on disk that a workload sees."""

    source: str = Field(description="path on the machine, or below the root of volume or tree")
    target: str
    read_only: bool = True
    host: bool = Field(
        False, description="a folder that the admin has: it must be there, and is left as it is"
    )
    volume: str | None = Field(None, description="the volume; on Kubernetes its claim")
    digest: Digest | None = Field(
        None, description="Kubernetes: tree that is fetched into the pod before it starts"
    )


class Pool(Model):
    """Nodes of a cluster that belong together, as the admin names them."""

    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = Field([], description="as in a pod's specification")
    gpu_resource: str = Field("nvidia.com/gpu", description="what these nodes call a GPU")


class NotebookSpec(Model):
    """Everything a spawner needs to start a notebook. The service makes it, the spawner obeys."""

    notebook: str
    workload: str = Field(description="of process or container: kaos-notebook-<id>-<start>")
    owner: Owner
    image: str | None = Field(None, description="image reference; none on the local engine")
    python: str | None = Field(None, description="the kernel's interpreter on the local engine")
    mounts: list[Mount] = []
    environment: dict[str, str] = {}
    resources: Resources
    labels: dict[str, str] = {}
    uid: int | None = Field(None, description="user the container runs as")
    pool: Pool | None = Field(None, description="Kubernetes: the nodes it may run on; None is any")


class AdmissionRequest(Model):
    """The spawner asks whether a server may start, and as what."""

    user: str
    identity: str = Field("", description="of the user in the Hub; stays when it is renamed")
    server: str = Field(description="the Hub's server name; empty is the default server")
    options: dict[str, Any] = {}


class ReleaseRequest(Model):
    """The spawner tells that a server is gone."""

    user: str
    identity: str = ""
    server: str
    workload: str
    exit_code: int | None = None
    stopped_by_hub: bool = Field(description="somebody asked for it; else it died by itself")
    reason: str = ""
