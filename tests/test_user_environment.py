"""What image, bundle or user set in the environment never reaches our programs, only theirs."""

import json

import pytest

from kaos_hub.util import variables
from kaos_hub.workload.trial import settings
from tests.desk import hub_at_desk
from tests.kernels import Kernel

# One of each family, with a value that keeps a server from starting, or from starting again.
HOSTILE = {
    "JUPYTER_CONFIG_DIR": "/proc/config",
    "JUPYTER_CONFIG_PATH": "/dev/null",
    "JUPYTER_DATA_DIR": "/proc/data",
    "JUPYTER_RUNTIME_DIR": "/proc/runtime",
    "JUPYTER_NO_CONFIG": "1",
    "JUPYTER_PREFER_ENV_PATH": "no",
    "JUPYTER_PORT": "9",
    "JUPYTER_TOKEN": "known",
    "XDG_CONFIG_HOME": "/proc/xdg",
    "XDG_DATA_HOME": "/proc/xdg",
    "XDG_CACHE_HOME": "/proc/xdg",
    "XDG_RUNTIME_DIR": "/proc/xdg",
    "PYTHONPATH": "/dev/null",
    "PYTHONSTARTUP": "/dev/null",
    "PYTHONTRACEMALLOC": "1",
    "SHELL": "/bin/false",
    "TMPDIR": "/proc/tmp",
    "BASH_ENV": "/proc/profile",
    "ENV": "/proc/profile",
    "SSL_CERT_FILE": "/proc/none.pem",
    "SSL_CERT_DIR": "/proc/none",
    "OPENSSL_CONF": "/proc/version",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "LANG": "tlh_XX",
    "LC_ALL": "tlh_XX.ISO-8859-1",
    "TZ": "Nowhere/At/All",
    "MPLBACKEND": "agg",
    "TORNADO_EXTENSION": "9",
    "NODE_OPTIONS": "--no-such-option",
}
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with hub_at_desk(tmp_path_factory.mktemp("hub")) as (hub, desk):
        yield hub, desk


def test_a_server_starts_again_and_again_whatever_the_user_sets(place):
    hub, desk = place

    def with_theirs(asked):
        spec = desk.admit(asked)
        return spec.model_copy(update={"environment": {**HOSTILE, **spec.environment}})

    desk.decide = with_theirs
    for _ in range(2):  # the second finds what the first one's kernel left
        assert hub.launch("one").status in (201, 202)
        assert hub.server("one")["ready"]
        token = hub.api("POST", f"/users/{hub.me}/tokens", {"scopes": ["access:servers!user"]})
        kernel = Kernel(f"{hub.url}/user/{hub.me}/one", token.json["token"])
        seen = json.loads(kernel.run(SHOW))
        assert {name: seen.get(name) for name in HOSTILE} == HOSTILE
        assert not [name for name in seen if name.startswith((variables.PREFIX, variables.GIVEN))]
        hub.end("one")


def test_what_is_not_ours_waits():
    given = variables.apart({"KAOS_URL": "u", "LANG": "C"}, {"LANG": "de", "MINE": "1"})
    image = {"KAOS_PYTHON": "/own", "JUPYTERHUB_SINGLEUSER_APP": "notebook", "MINE": "0"}
    environ = {**image, "HOME": "/h", "PATH": "/bin", **given}
    variables.put_aside(environ)
    ours = {n: v for n, v in environ.items() if not n.startswith(variables.PREFIX)}
    assert ours == {
        "HOME": "/h", "PATH": "/bin", "KAOS_URL": "u", "LANG": "C", "KAOS_GIVEN": "KAOS_URL,LANG",
    }  # fmt: skip
    assert variables.users(environ) == {
        **image, "HOME": "/h", "PATH": "/bin", "KAOS_URL": "u", "LANG": "de", "MINE": "1",
    }  # fmt: skip


def test_without_a_spawner_of_ours_the_hubs_variables_are_known_by_name():
    environ = {"JUPYTERHUB_API_TOKEN": "t", "KAOS_PACKAGES": "/p", "JUPYTER_DATA_DIR": "/d"}
    variables.put_aside(environ)
    assert set(environ) == {"JUPYTERHUB_API_TOKEN", "KAOS_PACKAGES", "KAOS_USER_JUPYTER_DATA_DIR"}


def test_a_trials_program_gets_what_the_image_set():
    environ = {**variables.apart({"KAOS_WORK_URL": "http://x"}, {}), **HOSTILE, "PATH": "/bin"}
    variables.put_aside(environ)
    assert not set(environ) & set(HOSTILE)
    seen = settings.read(environ).environment
    assert {name: seen[name] for name in HOSTILE} == HOSTILE
