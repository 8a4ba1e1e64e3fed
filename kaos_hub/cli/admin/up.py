"""``kaos up``: everything on this machine, with one command."""

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from kaos_hub.cli.base import Command, Session, pass_session
from kaos_hub.cli.terminal.output import show, show_json
from kaos_hub.errors import Conflict, InvalidRequest, KaosError, Unsupported
from kaos_hub.installation.addresses import check_public_url
from kaos_hub.installation.datadir import DataDir
from kaos_hub.installation.public_address import Settled

_ENGINES = ("local", "docker")
_OTHERS = "users-password"
_INNER = ("hub", "service")
_SERVICES = ["access:services!service=kaos", "access:services!service=kaos-train"]


@click.command(cls=Command)
@click.option("--engine", type=click.Choice(_ENGINES), help="Where work runs.  [default: local]")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port that people use.  [default: the one used last, else 8000]",
)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Directory in which everything lies."
)
@click.option(
    "-f",
    "--config",
    "extra",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Settings like those of jupyterhub_config.py, read last.",
)
@click.option(
    "--trust-all-users",
    is_flag=True,
    help="On the engine local: let everybody who logs in run code as you.",
)
@click.option(
    "--bind-mount",
    "bind_mounts",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder that every notebook sees and may write to, at the same path.",
)
@click.option("--show-password", is_flag=True, help="Print the password and do nothing else.")
@pass_session
def up(
    session: Session,
    engine: str | None,
    port: int | None,
    data_dir: Path | None,
    extra: Path | None,
    trust_all_users: bool,
    bind_mounts: tuple[Path, ...],
    show_password: bool,
) -> None:
    """Start everything on this machine and print its address.

    Runs until Ctrl-C. Notebooks stay; the next `kaos up` finds them.

    \b
    Example:
        kaos up
        kaos up --engine docker --port 8080
    """
    _check_installed()
    check_public_url()
    data = DataDir(data_dir)
    if show_password:
        _show_password(session, data)
        return
    engine = engine or os.environ.get("KAOS_ENGINE") or "local"
    _refuse_second(data)
    environment = {
        "KAOS_DATA_DIR": str(data.path),
        "KAOS_ENGINE": engine,
        "KAOS_PORT": str(_choose_port(data, port)),
    }
    if extra:
        environment["KAOS_EXTRA_CONFIG"] = str(extra.absolute())
    if bind_mounts:
        environment["KAOS_BIND_MOUNTS"] = os.pathsep.join(map(_bind_mount, bind_mounts))
    if trust_all_users:
        environment["KAOS_TRUST_ALL_USERS"] = "1"
    from kaos_hub.deployment import launch
    from kaos_hub.transport.credentials import save_local_data

    with launch.told(data) as ready:
        save_local_data(data.path)
        _run(session, data, engine, environment, ready)


def _bind_mount(folder: Path) -> str:
    """A folder as the configuration takes it; refused if notebooks could not see it there."""
    from kaos_hub.schemas import AllowedMount

    if not folder.is_dir():
        raise InvalidRequest(f"--bind-mount: there is no folder {str(folder)!r}")
    path = str(folder.absolute())
    if os.pathsep in path:
        raise InvalidRequest(f"{path!r} has a {os.pathsep!r} in it; offer it in a file of -f")
    AllowedMount(host_path=path, container_path=path)
    return path


def _check_installed() -> None:
    """Say it in one sentence if this is the light install."""
    missing = [m for m in ("jupyterhub", "sqlalchemy", "tornado", "jupyterlab") if not find_spec(m)]
    if missing:
        raise Unsupported(
            f"`kaos up` needs more than is installed ({', '.join(missing)} missing)."
            " Run: pip install 'kaos-hub[hub]'"
        )


def _show_password(session: Session, data: DataDir) -> None:
    others = data.password(_OTHERS) if data.has_secret(_OTHERS) else None
    if session.json:
        document = {"user": data.user, "password": data.password()}
        show_json(document | ({"others": others} if others else {}))
    else:
        show(data.password())
        if others:
            show(f"others: {others}")


def _refuse_second(data: DataDir) -> None:
    from kaos_hub.deployment import launch

    pid = launch.running(data)
    if pid is not None:
        url = launch.local_url(data)
        raise Conflict(
            f"kaos already runs at {url} (process {pid}, data in {data.path})."
            f" Press Ctrl-C where it was started, or: kill {pid}",
            pid=pid,
            url=url,
        )


def _choose_port(data: DataDir, wanted: int | None) -> int:
    return wanted or _port_of_environment() or data.port("public", prefer=8000)


def _port_of_environment() -> int | None:
    text = os.environ.get("KAOS_PORT")
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise InvalidRequest(
            f"KAOS_PORT is {text!r}; a port is a number from 1 to 65535: KAOS_PORT=8000"
        )
    return int(text)


def _run(
    session: Session,
    data: DataDir,
    engine: str,
    environment: dict[str, str],
    ready: Callable[[], None],
) -> None:
    """Prepare, start, tell, and stay until the end."""
    from kaos_hub.deployment import launch

    launch.interruptible()
    port = int(environment["KAOS_PORT"])
    inner = _prepare(session, engine)
    launch.check_ports(data, port, inner)
    data.set_port("public", port)  # not earlier: one that cannot be used is not worth keeping
    session.note("Starting JupyterHub …")
    hub = launch.HubProcess.start(data, environment | {"KAOS_BRIDGE": inner})
    try:
        at = hub.wait_for_address(data)
        url = at.local
        certificates = launch.certificates(data)
        context = certificates.hub_client() if certificates else None
        hub.wait_until_ready(_checks(data, at, inner, bool(context)), context=context)
        logged_in = _log_in(session, data, url)
        ready()
        _welcome(session, data, url, logged_in, engine)
        code = hub.wait()
    finally:
        hub.end()
        launch.end_leftover_proxy(data)
    if code not in (0, 128 + 2, 128 + 15, -2, -15):
        raise KaosError(f"The Hub ended (exit code {code}). {hub.last_words()}")
    session.note("Stopped. Notebooks that ran go on running; `kaos up` finds them again.")


def _checks(data: DataDir, at: Settled, inner: str, secure: bool) -> list[str]:
    """Return the URLs that must answer: Hub and service directly, then both through the proxy.

    The proxy logs failures, so it is not asked first. Its certificate need not be known here:
    behind TLS only the direct URLs are asked.
    """
    scheme = "https" if secure else "http"
    hub, service = (f"{scheme}://{inner}:{data.port(role, inner)}{at.path}" for role in _INNER)
    paths = "/hub/health", "/services/kaos/health"
    direct = [url + path for url, path in zip((hub, service), paths, strict=True)]
    return direct + ([] if at.local.startswith("https:") else [at.local + path for path in paths])


def _prepare(session: Session, engine: str) -> str:
    """Make what the first start needs; returns the address that notebooks talk to."""
    from kaos_hub.deployment.proxy import program

    if not program.installed():
        session.note("Setting up the proxy (once) …")
        program.install()
    if engine == "local":
        from kaos_hub.doctor.finding import GOOD
        from kaos_hub.doctor.machine import bubblewrap

        if (found := bubblewrap(engine)).state != GOOD:
            session.note(f"No sandbox: {found.text} {found.advice}")
        return "127.0.0.1"
    from kaos_hub.deployment.docker_bridge import prepare

    return prepare(session.note)


def _log_in(session: Session, data: DataDir, url: str) -> bool:
    """Log in the command line of the user who runs this; they could read the secrets anyway."""
    from kaos_hub.deployment.launch import call
    from kaos_hub.transport.credentials import load_credentials, save_credentials

    known = load_credentials(url)
    if known and known.user == data.user:
        status, found = call(f"{url}/hub/api/user", known.token)
        # One of an earlier release cannot train.
        if status == 200 and set(_SERVICES) & set(found["scopes"]) == set(_SERVICES):
            save_credentials(url, known.token, data.user, str(data.path))
            return True
    own = [f"access:servers!user={data.user}", f"read:servers!user={data.user}"]
    # The Hub gives no token with more than the user has: the admin may have restricted either.
    for services in (_SERVICES, _SERVICES[:1], _SERVICES[1:]):
        status, answer = call(
            f"{url}/hub/api/users/{data.user}/tokens",
            data.secret("up"),
            {"note": f"kaos on this machine ({os.uname().nodename})", "scopes": [*services, *own]},
        )
        if status == 201:
            save_credentials(url, answer["token"], data.user, str(data.path))
            return True
    session.note(
        f"The command line is not logged in: this Hub knows no user {data.user}."
        f" Run: kaos login {url}"
    )
    return False


def _welcome(session: Session, data: DataDir, url: str, logged_in: bool, engine: str) -> None:
    from kaos_hub.installation import logins

    ours = data.authenticator.read_text() == "shared-password"
    builder = logins.noted(data) if engine == "docker" else {}
    alone = bool(builder.get("only"))
    passwords = _new_passwords(data, alone) if ours else {}
    if session.json:
        document: dict[str, Any] = {"url": url, "user": data.user, "logged_in": logged_in}
        show_json(document | passwords | ({"builder": builder["builder"]} if builder else {}))
    else:
        show(f"\n  kaos runs at  {url}\n")
        if ours:
            show(f"  user          {data.user}")
            told = passwords.get("password", "as before; `kaos up --show-password` tells")
            show(f"  password      {told}")
        if "others" in passwords:
            show(f"  others        any name, password {passwords['others']}")
        if builder:
            show(f"  builds        {logins.in_words(builder)}")
        if engine == "docker" and _shares_network(data):
            show(
                "\n  ! Containers of all users share one network (c.DockerNetworks.isolate is off)."
            )
        if logged_in:
            show("\n  Your command line is logged in. Try: kaos notebook deploy -s FOLDER")
        show(f"  Log: {data.logs / 'hub.log'}")
        show("  Ctrl-C stops it; notebooks stay.\n")


def _shares_network(data: DataDir) -> bool:
    """Return whether users' containers share a network, as the service was told at its start."""
    try:
        return not json.loads(data.network_settings.read_text())["isolate"]
    except (OSError, ValueError, KeyError):
        return False


def _new_passwords(data: DataDir, alone: bool) -> dict[str, str]:
    """Return passwords not told yet; each is told once, that of others unless ``alone``."""
    new = {}
    for key, name in (("password", "password"), ("others", _OTHERS))[: 1 if alone else 2]:
        if data.has_secret(name) and not data.has_secret(f"{name}-shown"):
            new[key] = data.password(name)
            data.secret(f"{name}-shown", lambda: "yes")
    return new
