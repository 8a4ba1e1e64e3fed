"""Starts that are refused: what people read of them, and what the Hub's log says."""

import html
import logging
import re

from jupyterhub.spawner import SpawnException

from kaos_hub.errors import KaosError, NotBuilt


class Refused(SpawnException):
    """A start that was refused or went wrong in a way that the user should read about.

    JupyterHub shows the message of a SpawnException to REST callers only; its progress stream and
    its page read the two attributes set here.
    """

    def __init__(self, error: KaosError) -> None:
        page = str(error.details.get("page") or "")
        text = error.message if page in error.message else f"{error.message} {page}"
        # What is not built yet goes on at that page: browsers follow, with scripts or without.
        follow = bool(page) and isinstance(error, NotBuilt)
        markup = _linked(text, page, follow)
        super().__init__(text, reason=error.code, message_html=markup, status_code=error.status)
        self.jupyterhub_message = text
        self.jupyterhub_html_message = markup
        if follow:
            # From there people are taken on, to what they wanted started.
            self.headers = {"Refresh": f"0; url={page}?open=1"}


def _linked(text: str, page: str, follow: bool) -> str:
    """The text as HTML, in which the address of a page of this Hub is a link.

    Our templates look for ``data-follow`` and send people on.
    """
    markup, path = html.escape(text), html.escape(page)
    if not page:
        return markup
    link = rf'<a{" data-follow" if follow else ""} href="{path}">\g<0></a>'
    return re.sub(rf"\S*{re.escape(path)}", link, markup, count=1)


class _InALine(logging.Filter):
    """Refusals are ordinary. JupyterHub logs those of its form with a traceback, as if they were
    defects; a line says it all."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Refused):
            record.msg = f"{record.getMessage()}: {error.jupyterhub_message}"
            record.args, record.exc_info = (), None
        return True


IN_A_LINE = _InALine()
"""One for all spawners: a logger takes the same filter once."""
