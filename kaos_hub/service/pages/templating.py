"""Pages in the Hub's own look: its templates and theme, with ours beside them."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from json import dumps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jupyterhub._data
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader
from jupyterhub.utils import url_escape_path, url_path_join

from kaos_hub.schemas import DEFAULT_SERVER, IdlePolicy, Resources
from kaos_hub.service.pages.previews import safe
from kaos_hub.service.pages.trials_table import seconds_of, show_number, show_value
from kaos_hub.util.quantities import about, duration, plural, show_memory

HERE = Path(__file__).parent.parent
STATIC = HERE / "static"
HUB_TEMPLATES = HERE / "hub_templates"
"""The directory for ``c.JupyterHub.template_paths``: it adds our entries to the Hub's menu."""
_FRAME = "page.html"


@dataclass(frozen=True)
class Visitor:
    """The user in the form that the Hub's templates need."""

    name: str

    @property
    def json_escaped_name(self) -> str:
        """The name inside a JavaScript string, as the Hub's page.html puts it."""
        return dumps(self.name)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e")


@dataclass(frozen=True)
class Page:
    """A page, and the policy of what a browser may do with it."""

    html: str
    policy: str
    """The value of the header ``Content-Security-Policy``."""


_INLINE = re.compile(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)


class Pages:
    """A renderer of templates.

    Args:
        hub_config: the Hub's section of the configuration file, for an admin's own templates and
            announcements.
        hub_prefix: the Hub's path, e.g. ``/hub/``.
        hub_host: scheme and host of the Hub where it has one of its own, else empty.
        prefix: this service's path.
    """

    def __init__(
        self,
        hub_config: Mapping[str, Any],
        hub_prefix: str,
        hub_host: str,
        prefix: str,
    ) -> None:
        self._hub = hub_host + hub_prefix
        self._ours = f"'self' {hub_host}".rstrip()
        self._prefix_of_all = hub_prefix.removesuffix("hub/")
        self._prefix = prefix
        self._variables = {
            name: value
            for name, value in dict(hub_config.get("template_vars") or {}).items()
            if not callable(value)
        }
        own = [str(path) for path in hub_config.get("template_paths") or []]
        self._environment = _environment(own)

    @cached_property
    def static_version(self) -> str:
        """A digest that changes whenever one of our static files does."""
        digest = hashlib.sha256()
        for path in sorted(STATIC.iterdir()):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def path_of(self, service: str) -> str:
        """Return the path of one of our services."""
        return f"{self._prefix_of_all}services/{service}/"

    def hub_static(self, path: str, include_version: bool = True) -> str:
        """Return the address of a static file of the Hub's."""
        return str(url_path_join(self._hub, "static", path))

    def own_static(self, path: str) -> str:
        """Return the address of a static file of ours.

        It changes with the files, and so do the addresses of the files that it imports.
        """
        return f"{self._prefix}static/{self.static_version}/{path}"

    def spawn_url(self, user: str, notebook: str) -> str:
        """Return the address of the Hub's form that starts a notebook."""
        server = "" if notebook == DEFAULT_SERVER else notebook
        return str(url_path_join(self._hub, "spawn", url_escape_path(user), server))

    def render(
        self,
        template: str,
        *,
        user: str | None,
        admin: bool,
        services: Iterable[str],
        xsrf: str,
        **more: Any,
    ) -> Page:
        """Render a page.

        Args:
            template: its file name.
            user: the user who looks at it, if known.
            admin: whether the Hub's menu has the admin's entry.
            services: those of our services that the user may use.
            xsrf: the XSRF token for forms.
            more: the values that the template itself needs.
        """
        known = {
            "base_url": self._hub,
            "prefix": self._prefix_of_all,
            "logo_url": self._hub,
            "user": Visitor(user) if user else None,
            "no_spawner_check": True,
            "login_url": url_path_join(self._hub, "login"),
            "logout_url": url_path_join(self._hub, "logout"),
            "static_url": self.hub_static,
            "version_hash": "",
            "services": [{"name": name, "href": self.path_of(name)} for name in services],
            "parsed_scopes": {"admin-ui"} if admin else set(),
            "xsrf": xsrf,
            "xsrf_token": xsrf,
            "kaos": self._prefix,
            "home": "Your trainings" if self._prefix.endswith("-train/") else "Your notebooks",
            "path_of": self.path_of,
            "kaos_static": self.own_static,
            "spawn_url": self.spawn_url,
        }
        known |= self._variables
        html = self._environment.get_template(template).render({**known, **more})
        return Page(html, self._policy(self._environment.get_template(_FRAME).render(known)))

    def _policy(self, frame: str) -> str:
        """Return the policy of a page.

        It allows the Hub's content, and the scripts of the page's frame. The frame has a script
        within the page. It is named by its digest, taken from the frame alone: nothing in the frame
        is text that a user named or logged. So a browser runs no other script, even if such text
        were to become one.
        """
        digests = (hashlib.sha256(script.encode()).digest() for script in _INLINE.findall(frame))
        scripts = "".join(f" 'sha256-{b64encode(digest).decode()}'" for digest in digests)
        return (
            f"default-src {self._ours}; script-src {self._ours}{scripts}; style-src {self._ours};"
            f" img-src {self._ours} data:; object-src 'none'; base-uri 'none';"
            " frame-ancestors 'none'"
        )


def _environment(admin_paths: list[str]) -> Environment:
    hub = str(Path(jupyterhub._data.DATA_FILES_PATH) / "templates")
    theirs = FileSystemLoader([*admin_paths, str(HUB_TEMPLATES), hub])
    # `templates/page.html` is the Hub's own, for admins' pages that extend it, as in the Hub.
    loader = ChoiceLoader(
        [
            PrefixLoader({"templates": FileSystemLoader([hub])}),
            FileSystemLoader(str(HERE / "templates")),
            theirs,
        ]
    )
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(_FILTERS)
    return environment


SOON = 1800
"""Seconds before an idle notebook is stopped, from which on its page warns."""
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


def ago(moment: datetime) -> str:
    """Return the time since a moment, in one unit: ``just now``, ``3 minutes ago``."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{plural(int(seconds // size), unit)} ago"
    return "just now"


def soon(moment: datetime) -> bool:
    """Return whether a moment is so near that the page should warn."""
    return (moment - datetime.now(UTC)).total_seconds() < SOON


def left(moment: datetime) -> str:
    """Return the time until a moment: ``5 min``, ``1 h 20 min``."""
    return about(max(0, (moment - datetime.now(UTC)).total_seconds()))


_FILE = re.compile(
    r"\b(Dockerfile|startup-hook\.sh|[\w./-]+\.(?:txt|py|ipynb|ya?ml|toml|json|cfg|lock))\b"
)


def names_file(reason: str) -> bool:
    """Return whether a reason names a file: that has to change before a retry can help."""
    return _FILE.search(reason) is not None


def took(seconds: float) -> str:
    """Return a duration of at least a second: ``1 s``, ``2 min 5 s``, ``3 h 10 min``."""
    return duration(max(1, round(seconds)))


def show_resources(resources: Resources) -> str:
    """Return ``2 cores · 4Gi · 1 GPU``, without what is not limited."""
    parts = []
    if resources.cpu is not None:
        parts.append(plural(resources.cpu, "core"))
    if resources.memory is not None:
        parts.append(show_memory(resources.memory))
    if resources.gpu:
        parts.append(plural(resources.gpu, "GPU"))
    return " · ".join(parts) or "no limit"


def show_idle(policy: IdlePolicy) -> str:
    """Return the idle policy as words: ``stops after 1 h without activity``."""
    if not policy.timeout:
        return "never stopped for being idle"
    what = {
        "kernels_or_terminals": "without a kernel or terminal",
        "kernel_connections": "without a connection to a kernel",
        "activity": "without activity",
    }[policy.type.value]
    return f"stops after {duration(policy.timeout)} {what}"


def here(url: str) -> str:
    """Return a link within this Hub that works at any address of it, such as a tunnel's."""
    return f"{urlsplit(url).path}/"


_FILTERS: dict[str, Callable[..., str | bool | float | None]] = {
    "ago": ago,
    "soon": soon,
    "took": took,
    "resources": show_resources,
    "idle_policy": show_idle,
    "here": here,
    "number": show_number,
    "value": show_value,
    "seconds": seconds_of,
    "size": show_memory,
    "left": left,
    "names_file": names_file,
    "plural": plural,
    "safe_text": safe,
}
