"""Settings of the engine of a cluster."""

import os

from traitlets import Bool, Dict, Float, Int, List, Unicode, default

from kaos_hub.engines.configurable import ConfigurableEngine
from kaos_hub.engines.kubernetes.api import Object
from kaos_hub.engines.kubernetes.objects import volume
from kaos_hub.engines.kubernetes.steps import Settings
from kaos_hub.errors import Unsupported
from kaos_hub.registry.names import Reference
from kaos_hub.schemas import Resources
from kaos_hub.util.quantities import parse_memory


class KubernetesSettings(ConfigurableEngine):
    """The settings of :class:`~kaos_hub.engines.kubernetes.engine.KubernetesEngine`."""

    uid = Int(
        1000, min=1, help="User and group id of what runs in pods, and of the homes they write to."
    ).tag(config=True)

    namespace = Unicode(
        "kaos-workloads",
        help="Namespace of builds and notebooks. It holds nothing of the Hub's, so that whoever"
        " breaks out of a pod's permissions there finds nothing.",
    ).tag(config=True)

    trees_claim = Unicode(
        help="Name of a ReadWriteMany claim in the namespace, on which bundles and the runtime are"
        " laid out once for all pods. Default: none; then every pod fetches its own first."
    ).tag(config=True)

    registry = Unicode(
        help="Registry, and path in it, that built images are pushed to (`registry:5000/kaos`), as"
        " pods and the service reach it. Default: none, and images cannot be built."
    ).tag(config=True)

    pull_registry = Unicode(help="The same as the nodes reach it. Default: `registry`.").tag(
        config=True
    )

    registry_login = Unicode(
        help="File, as `docker login` writes it, with passwords by which the service asks"
        " registries what a tag means. Default: none, it asks without."
    ).tag(config=True)

    registry_ca = Unicode(
        help="File with certificates that the service trusts in registries, beside the system's."
    ).tag(config=True)

    registry_mirrors = Dict(
        help="Registry → what is asked before it: {'docker.io': 'mirror:5000'}. Where nodes know"
        " `registry` by another name (`pull_registry`), that name leads to it without being set."
    ).tag(config=True)

    insecure_registries = List(
        Unicode(),
        help="Registries (`host:port`) that are spoken to without TLS, or whose certificate is not"
        " checked.",
    ).tag(config=True)

    push_secret = Unicode(
        help="Name of a secret of type kubernetes.io/dockerconfigjson with the password to push"
        " with. Only the step that pushes sees it, and that runs nothing of a user's."
    ).tag(config=True)

    base_secret = Unicode(
        help="Name of such a secret with the password by which base images are fetched from"
        " registries that want one. Only the step that fetches them sees it; but everybody who"
        " builds can have what it may read, so let it be an account that sees base images and not"
        " what is below `registry`. Default: none, bases are fetched without a password."
    ).tag(config=True)

    pull_secrets = List(
        Unicode(), help="Names of such secrets by which nodes pull images of pods."
    ).tag(config=True)

    ca_configmap = Unicode(
        help="Name of a config map whose `ca.crt` holds certificates that builds trust: in"
        " registries and package indexes."
    ).tag(config=True)

    pip_index_url = Unicode(
        help="Index that pip uses in builds, unless a base image has another in /etc/pip.conf or"
        " its variables. Without a password: every build sees it. Default: what the base image"
        " says, else PyPI."
    ).tag(config=True)

    build_args = Dict(
        help="Build arguments of every build, for Dockerfiles that declare them."
    ).tag(config=True)

    build_environment = Dict(
        help="Variables of the builder; HTTP_PROXY, HTTPS_PROXY and NO_PROXY reach every step."
    ).tag(config=True)

    builder_image = Unicode(help="The image that builds images; see images/README.md.").tag(
        config=True
    )

    runtime_image = Unicode(
        help="The image with the runtime of notebooks; it also fetches bundles and pushes images."
    ).tag(config=True)

    build_seccomp_profile = Unicode(
        help="Seccomp profile on the nodes (`profiles/builder.json`) for the step that builds; it"
        " must allow `unshare`, `mount` and what else the default profile lets only root do."
        " Default: none, and the step is unconfined, as it also is for AppArmor then."
    ).tag(config=True)

    build_storage = Unicode(
        "20Gi", help="Bytes that a build may fill on its node, and the size of an owner's cache."
    ).tag(config=True)

    build_cache = Bool(
        False,
        help="Keep base images and steps of builds on a claim for every owner. Worth it where"
        " volumes are local and fast; a network volume mostly is slower than pulling again.",
    ).tag(config=True)

    build_processes = Int(
        2048,
        min=64,
        help="How many processes the builds on one node may have; stops fork bombs.",
    ).tag(config=True)

    job_cpu = Float(2.0, min=0.01, help="Cores of a job that asks for nothing, at most.").tag(
        config=True
    )

    job_memory = Unicode("4Gi", help="Bytes of a job that asks for nothing, at most.").tag(
        config=True
    )

    job_share = Float(
        0.25,
        min=0.01,
        max=1,
        help="Part of that which is reserved for such a job. Less lets more run at once.",
    ).tag(config=True)

    job_storage = Unicode(
        "20Gi", help="Bytes that a job may fill on its node; beyond it is ended."
    ).tag(config=True)

    volume_size = Unicode(
        "10Gi", help="Size of a named volume. It is asked for once, when the volume is made."
    ).tag(config=True)

    volume_class = Unicode(help="Storage class of named volumes. Default: the cluster's.").tag(
        config=True
    )

    shared_volumes = Bool(
        False,
        help="Whether that class can be mounted on several nodes at once (ReadWriteMany). If not, a"
        " volume can be in one running notebook at a time, and others are refused.",
    ).tag(config=True)

    gpu_resource = Unicode("nvidia.com/gpu", help="What nodes call a GPU.").tag(config=True)

    gpu_count = Int(
        0, min=0, help="How many GPUs a workload may ask for. Nodes are not asked: that would take"
        " the right to see all of them.",
    ).tag(config=True)  # fmt: skip

    node_selector = Dict(help="Labels of the nodes that jobs run on. Default: any node.").tag(
        config=True
    )

    tolerations = List(Dict(), help="Tolerations of jobs, as in a pod's specification.").tag(
        config=True
    )

    service_url = Unicode(
        help="URL of the service as pods reach it. Default: $KAOS_INSIDE_URL."
    ).tag(config=True)

    stop_grace = Int(5, min=0, help="Seconds between SIGTERM and SIGKILL.").tag(config=True)

    patience = Float(
        30,
        min=0,
        help="Seconds for which an image that cannot be pulled, or a pod that cannot be made, is"
        " tried again before its job fails.",
    ).tag(config=True)

    resync = Float(
        30, min=0.1, help="Seconds after which a watched pod is looked at without any event."
    ).tag(config=True)

    threads = Int(8, min=1, help="Simultaneous requests to the cluster and to registries.").tag(
        config=True
    )

    @default("service_url")
    def _service_url(self) -> str:
        return os.environ.get("KAOS_INSIDE_URL", "").rstrip("/")

    def settings(self) -> Settings:
        """All that the manifests of pods depend on.

        Raises:
            InvalidResources: a quantity that is none.
        """
        return Settings(
            uid=self.uid,
            grace=self.stop_grace,
            builder_image=self.builder_image,
            runtime_image=self.runtime_image,
            registry=self.registry,
            pull_registry=self.pull_registry or self.registry,
            push_secret=self.push_secret,
            base_secret=self.base_secret,
            pull_secrets=self.pull_secrets,
            insecure=self.insecure_registries,
            mirrors=self.mirrors(),
            ca_configmap=self.ca_configmap,
            pip_index_url=self.pip_index_url,
            build_args=self.build_args,
            build_environment=self.build_environment,
            build_seccomp_profile=self.build_seccomp_profile,
            build_storage=parse_memory(self.build_storage),
            build_processes=self.build_processes,
            build_cache=self.build_cache,
            storage=parse_memory(self.job_storage),
            default=Resources(cpu=self.job_cpu, memory=parse_memory(self.job_memory)),
            share=self.job_share,
            gpu_resource=self.gpu_resource,
            service_url=self.service_url,
            trees_claim=self.trees_claim,
            node_selector=self.node_selector,
            tolerations=self.tolerations,
        )

    def mirrors(self) -> dict[str, str]:
        """Registry → what is asked before it.

        A base image may be named as nodes know it (what a notebook runs on is), and builds, which
        run in pods, reach that registry by its other name only.
        """
        here, _, path = self.registry.partition("/")
        nodes, _, nodes_path = (self.pull_registry or self.registry).partition("/")
        own = {nodes: here} if nodes != here and path == nodes_path else {}
        return {**own, **self.registry_mirrors}

    def owns(self, image: Reference) -> bool:
        """Return whether the name of an image lies below the registry that builds push to."""
        places = [place for place in (self.registry, self.pull_registry) if place]
        return any(f"{image.name}/".startswith(f"{place}/") for place in places)

    def volume_claim(self, name: str, owner: str) -> Object:
        """The claim of a named volume.

        Raises:
            InvalidResources: its size is none.
        """
        size = parse_memory(self.volume_size)
        return volume(name, size, owner, self.volume_class, self.shared_volumes)

    def check_builds(self) -> None:
        """See whether images can be built at all.

        Raises:
            Unsupported: names the setting that is missing.
        """
        for trait in ("registry", "builder_image", "runtime_image", "service_url"):
            if not getattr(self, trait):
                raise Unsupported(
                    f"Images cannot be built here: the admin has to set KubernetesEngine.{trait}"
                )

    def weaknesses(self) -> list[str]:
        """List what is weaker than promised with these settings."""
        found = [
            "Whether the cluster enforces network policies cannot be seen from here.",
            "A pod's processes are limited only where nodes do it (kubelet's podPidsLimit).",
        ]
        if not self.registry:
            found.append("No registry is set (KubernetesEngine.registry): no image can be built.")
        if not self.trees_claim:
            found.append("There is no shared claim: every pod fetches its trees before it starts.")
        if self.build_cache:
            found.append("What builds keep in their cache is measured every few seconds only.")
        return found
