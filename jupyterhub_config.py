"""The whole Hub: `kaos up` runs it, and `jupyterhub -f jupyterhub_config.py` is the same thing.

The environment decides:

KAOS_DATA_DIR         where everything lies            ~/.local/share/kaos_hub
KAOS_ENGINE           where work runs: local, docker,  local
                      kubernetes
KAOS_PORT             the port people use              the one used last, else 8000 if it is free
KAOS_PUBLIC_URL       how people reach that port, with   http://127.0.0.1:<port>
                      the path of the Hub if it has one
KAOS_SUBDOMAIN_HOST   the Hub's own address, below     none: users share it
                      whose domain each user has
                      one; wants a wildcard name
KAOS_BRIDGE           address of this machine as       the gateway of Docker's bridge
                      containers see it (docker, and
                      kubernetes from outside)
KAOS_ADMIN            who administrates                the OS user who started it
KAOS_TRUST_ALL_USERS  1: on the engine `local`, let    only the OS user who started it
                      all users run code as that
                      OS user
KAOS_BIND_MOUNTS      folders that all notebooks      none
                      see, with `:` between them
KAOS_EXTRA_CONFIG     a file like this one, read last, none
                      or a folder of such files, and
                      of settings as JSON

In a Kubernetes cluster Hub, proxy and service are a pod each, and read this file, too; the chart
`helm/kaos-hub` sets there:

KAOS_NAMESPACE        the namespace of those pods      none: all three are on this machine
KAOS_SECRETS_DIR      where secrets are mounted        secrets, in the data directory
KAOS_BESIDE           1: the Hub is another chart's,   the Hub is ours
                      which has its own proxy,
                      database and authenticator
KAOS_WORKLOADS, KAOS_REGISTRY, …                       see _KUBERNETES below

The service reads this file too: limits, sizes and idle rules (`c.KaosService…`) stand here.
"""

import os
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from traitlets.config import Application

from kaos_hub.deployment.default_url import first_page
from kaos_hub.deployment.docker_bridge import prepare
from kaos_hub.deployment.extra_config import add_json, database_url, files_of
from kaos_hub.deployment.launch import running
from kaos_hub.engines.runtime_image import volume
from kaos_hub.installation import internal_ssl
from kaos_hub.installation.addresses import SERVICES, in_cluster, namespace, on_this_machine
from kaos_hub.installation.datadir import DataDir
from kaos_hub.installation.domains import domain_of
from kaos_hub.installation.logins import ONLY_USER, settle_builder, who
from kaos_hub.installation.public_address import apply, remember, settle

_TEMPLATES = ("service/hub_templates", "hub/spawners/templates")  # our menu entry, our spawn form
# Settings of the engine `kubernetes`: the variable, and what it sets.
_KUBERNETES = {
    "KAOS_WORKLOADS": ("KubernetesEngine.namespace", "KaosKubeSpawner.namespace"),
    "KAOS_TREES_CLAIM": ("KubernetesEngine.trees_claim",),
    "KAOS_RUNTIME_IMAGE": ("KubernetesEngine.runtime_image", "KaosKubeSpawner.runtime_image"),
    "KAOS_BUILDER_IMAGE": ("KubernetesEngine.builder_image",),
    "KAOS_NOTEBOOK_IMAGE": ("KaosService.default_image",),
    "KAOS_REGISTRY": ("KubernetesEngine.registry",),
    "KAOS_PULL_REGISTRY": ("KubernetesEngine.pull_registry",),
    "KAOS_PUSH_SECRET": ("KubernetesEngine.push_secret",),
    "KAOS_BASE_SECRET": ("KubernetesEngine.base_secret",),
}

c = get_config()

this_file = Path(__file__).absolute()
data = DataDir()
engine = os.environ.get("KAOS_ENGINE") or "local"
trust_all = engine != "local" or os.environ.get("KAOS_TRUST_ALL_USERS") == "1"
admin = os.environ.get("KAOS_ADMIN") or data.user
cluster = namespace()
beside = os.environ.get("KAOS_BESIDE") == "1"
# In a cluster the service knows none of the Hub's secrets.
in_service = cluster and "kaos_hub.service" in sys.modules
others = in_service or beside
hub_secret, hub_password = (lambda *_: "",) * 2 if others else (data.secret, data.password)
public_url = os.environ.get("KAOS_PUBLIC_URL") or ""
if cluster:
    inner, at = "", in_cluster(cluster)
else:
    port = int(os.environ.get("KAOS_PORT") or data.port("public", prefer=8000))
    # What notebooks talk to listens where they can reach it, and nowhere else.
    inner = "127.0.0.1" if engine == "local" else os.environ.get("KAOS_BRIDGE")
    if engine == "kubernetes" and not inner:
        sys.exit(
            "KAOS_BRIDGE must name the address at which the cluster's pods reach this machine."
        )
    inner = inner or prepare(print)
    at = on_this_machine(data, port, inner)

# Where people come in. Without JupyterHub.public_url all redirects stay relative, so an SSH tunnel
# or `localhost` works as well as the address printed.
c.JupyterHub.bind_url = at.public_bind
c.JupyterHub.proxy_class = "kaos_hub.deployment.proxy.hub.KaosProxy"
c.KaosProxy.data_dir = str(data.path)
c.ConfigurableHTTPProxy.should_start = not cluster
c.ConfigurableHTTPProxy.api_url = at.proxy_api
c.ConfigurableHTTPProxy.auth_token = hub_secret("proxy")
c.ConfigurableHTTPProxy.log_level = "warn"
c.ConfigurableHTTPProxy.pid_file = str(data.path / "proxy.pid")

# The Hub itself. It may come and go: notebooks stay, and are found again.
c.JupyterHub.hub_bind_url = at.hub_bind
c.JupyterHub.hub_connect_url = at.hub
c.JupyterHub.db_url = database_url(data.given("database-url"), data.hub_database)
c.JupyterHub.cookie_secret = hub_secret("cookie")
c.JupyterHub.cleanup_servers = False
c.JupyterHub.template_paths = [str(files("kaos_hub") / part) for part in _TEMPLATES]
c.JupyterHub.allow_named_servers = True
c.JupyterHub.default_url = first_page  # who logs in lands on the page Notebooks
# Ours have 256 random bits: hashing them slowly at each request would add nothing.
c.JupyterHub.trust_user_provided_tokens = True

# Who comes in: with the password that `kaos up` shows. Any other authenticator: KAOS_EXTRA_CONFIG.
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.admin_password = hub_password()
c.SharedPasswordAuthenticator.admin_users = {admin}
c.SharedPasswordAuthenticator.allowed_users = {admin}
if trust_all:
    c.SharedPasswordAuthenticator.user_password = hub_password("users-password")
    c.SharedPasswordAuthenticator.allow_all = True

# The service, and what it and its users may do. It is two to the Hub, on one port, so that access
# to each is a right of its own: to bundles and notebooks, or to bundles, trainings and models.
access = {f"access:services!service={name}" for name in SERVICES}
service, train = (
    {
        "name": name,
        "display": True,  # in the menu of those who have access
        "url": at.service,
        "api_token": data.secret(secret),
        "oauth_no_confirm": True,
        # Of these, who logs in gets what they have: one login is enough for both.
        "oauth_client_allowed_scopes": [*sorted(access), "access:servers!user"],
        "timeout": 1 if cluster else 30,  # seconds; in a cluster it may come later than the Hub
    }
    for name, secret in zip(SERVICES, ("service", "service-train"), strict=True)
)
if not cluster:
    service["command"] = [sys.executable, "-m", "kaos_hub.service", f"--config={this_file}"]
    # That it has ended is noticed at once. It is not to be ended for a large database that it
    # brings up to date, or on a busy machine.
    service["timeout"] = 900
    service["environment"] = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("JUPYTERHUB_", "JPY_"))},
        "KAOS_DATA_DIR": str(data.path),
        "KAOS_ENGINE": engine,
        "KAOS_BRIDGE": inner,
        "KAOS_ADMISSION_URL": at.admission_bind,
        "KAOS_HUB_PID": str(os.getpid()),  # it ends with this process, however that ends
    }
c.JupyterHub.services = [service, train]
c.JupyterHub.load_roles = [
    {
        "name": "kaos",
        "services": ["kaos"],
        "scopes": [
            "list:users",
            "read:users:name",
            "read:users:groups",
            "read:servers",
            "start:servers",
            "delete:servers",
        ],
    },
]
if cluster and not in_service:
    # Whoever gathers metrics, and may do nothing else.
    metrics = {"name": "kaos-metrics", "display": False, "api_token": data.secret("metrics")}
    c.JupyterHub.services.append(metrics)
    c.JupyterHub.load_roles.append(
        {"name": "kaos-metrics", "services": ["kaos-metrics"], "scopes": ["read:metrics"]}
    )
if not cluster:
    # `kaos up` logs in the command line of whoever started it, and can do nothing else.
    up = {"name": "kaos-up", "display": False, "api_token": data.secret("up")}
    c.JupyterHub.services.append(up)
    c.JupyterHub.load_roles.append(
        {"name": "kaos-up", "services": ["kaos-up"], "scopes": [f"tokens!user={data.user}"]}
    )
c.JupyterHub.extra_user_scopes = access  # everybody may do all; docs/howto/users.md restricts it

if "kaos_hub.service" not in sys.modules:
    # Names change and are given again. The service asks who somebody is for good.
    from kaos_hub.hub.spawners.identities import install

    install()

# Notebooks: nothing starts that the service has not admitted.
c.JupyterHub.spawner_class = f"kaos-{engine}"
c.KaosSpawnerMixin.admission_url = at.admission
c.KaosSpawnerMixin.admission_secret = data.secret("admission")
c.KaosLocalSpawner.data_dir = str(data.path)
c.KaosLocalSpawner.trust_all_users = trust_all
if engine == "docker":
    # Settled now: what is installed may change while the Hub runs.
    c.KaosDockerSpawner.runtime_volume = volume()
    # In the network of an owner only these of this machine's ports are in reach.
    c.DockerNetworks.hub_addresses = [at.hub, at.service]
    c.DockerNetworks.data_dir = str(data.path)
if engine == "kubernetes":
    for variable, settings in _KUBERNETES.items():
        for section, _, name in (setting.partition(".") for setting in settings):
            if os.environ.get(variable):
                c[section][name] = os.environ[variable]
    pull_secrets = [s for s in os.environ.get("KAOS_PULL_SECRETS", "").split(",") if s]
    c.KubernetesEngine.pull_secrets = c.KaosKubeSpawner.image_pull_secrets = pull_secrets
c.Spawner.start_timeout = 120  # seconds; a bundle's startup hook may take its time
c.KaosKubeSpawner.start_timeout = 3600  # so may a node that pulls an image
c.Spawner.poll_interval = 5  # a dead notebook is seen within seconds

# c.KaosService.limits = {"default": {"notebooks": 5, "cpu": 4, "memory": "8Gi", "gpu": 0}}

if beside:
    # What is left is added to the other chart's own configuration.
    for section in ("ConfigurableHTTPProxy", "KaosProxy", "SharedPasswordAuthenticator"):
        del c[section]
    for name in ("authenticator_class", "bind_url", "cookie_secret", "db_url", "proxy_class"):
        del c.JupyterHub[name]
    for name in ("services", "load_roles"):
        ours = c.JupyterHub.pop(name)
        c.JupyterHub[name].extend(ours)
if os.environ.get("KAOS_EXTRA_CONFIG"):
    for path in files_of(Path(os.environ["KAOS_EXTRA_CONFIG"]).absolute()):
        if path.suffix == ".json":
            add_json(c, path)
        else:
            load_subconfig(str(path))

# TLS between Hub, proxy, service and what runs for users; docs/howto/internal-tls.md
given = Application.instance().cli_config if Application.initialized() else {}
starts = not cluster and "kaos_hub.service" not in sys.modules and running(data) is None
where = "kubernetes" if cluster or beside else engine
if certified := internal_ssl.check(c.JupyterHub, given.get("JupyterHub", {}), where):
    at = internal_ssl.secure(c, at, data, make=starts)

# What all that says of the address at which people come in is made one; a file above may have given
# the Hub a path, which is in the addresses of all that it serves.
domains = os.environ.get("KAOS_SUBDOMAIN_HOST") or c.JupyterHub.get("subdomain_host", "")
if not beside:
    settled = settle(c.JupyterHub, given.get("JupyterHub", {}), at.public_bind, public_url)
    apply(c.JupyterHub, settled)
    at = replace(at, path=settled.path)
    if not cluster:
        own_domain = f"{domains.rstrip('/')}{at.path}" if domains and not public_url else ""
        told = {"KAOS_PUBLIC_URL": own_domain or settled.public, "KAOS_INSIDE_URL": at.inside}
        told[ONLY_USER] = ""
        if engine == "docker" and "kaos_hub.service" not in sys.modules:
            # What builds images follows from who can log in.
            told[ONLY_USER] = settle_builder(c, who(c, given), data, running(data) is None)
        # A file above that adds a service leaves copies of those that were there.
        for each in c.JupyterHub.services:
            if each.get("name") == service["name"]:
                each["environment"] = each.get("environment", {}) | told
        if starts:
            certificates = c.JupyterHub.internal_certs_location if certified else ""
            remember(data, replace(settled, certificates=certificates))
if "service_url" not in c.KaosSpawnerMixin:
    c.KaosSpawnerMixin.service_url = at.inside

# A domain for each user, below the Hub's own: https://ada.hub.example.org beside
# https://hub.example.org. Then no page of one user's notebook can act in another's name.
if domains:
    c.JupyterHub.subdomain_host = domains
    if "subdomain_hook" not in c.JupyterHub:
        c.JupyterHub.subdomain_hook = domain_of
    # This machine, and pods of ours, ask for the service by other names.
    host = f"proxy.{cluster}" if cluster else "127.0.0.1"
    own = {f"{host}{at.path}/services/{name}/": at.service for name in SERVICES}
    c.Proxy.extra_routes = own | c.Proxy.get("extra_routes", {})
if not cluster:
    data.domains.write_text(domains)

# `kaos up` shows its password only where that lets somebody in; `kaos doctor` looks at what the
# engine needs.
if not cluster:
    data.engine.write_text(engine)
    data.authenticator.write_text(str(c.JupyterHub.authenticator_class))
