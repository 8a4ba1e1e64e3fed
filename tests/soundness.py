"""Whether pages are sound: what browsers refuse to run, and what axe finds."""

from typing import Any

from axe_playwright_python.sync_playwright import Axe

_LISTEN = """
document.addEventListener("securitypolicyviolation", (event) => {
  kaosRefused(`${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
});
"""  # noqa: E501
_SERIOUS = ("serious", "critical")


def listen(context: Any) -> list[str]:
    """What browsers refuse because of a page's policy, from now on."""
    refused: list[str] = []
    context.expose_binding("kaosRefused", lambda _, text: refused.append(text))
    context.add_init_script(_LISTEN)
    return refused


def faults(page: Any) -> list[str]:
    """Serious faults that axe finds on a page: which rule, and where."""
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {fault['help']}: {' | '.join(n['html'][:150] for n in fault['nodes'][:3])}"
        for fault in found
        if fault["impact"] in _SERIOUS
    ]
