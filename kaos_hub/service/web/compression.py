"""Compression of answers, where it helps and reveals nothing.

A site that sends requests with a user's cookies, and sees how long the answers are, finds out byte
by byte what stands in a compressed page beside text of its choosing, such as the XSRF token
(BREACH). Browsers say where a request comes from: pages and data are compressed only for our own
pages, and for an address that was typed. Static files hold no secret.
"""

from tornado.httputil import HTTPServerRequest
from tornado.web import GZipContentEncoding

_KINDS = {
    "text/html", "text/css", "text/csv", "text/javascript", "application/javascript",
    "application/json", "image/svg+xml",
}  # fmt: skip
"""Media types that become smaller. Event streams are not among them: they are sent at once."""
_OURS = ("same-origin", "none")


class Compression(GZipContentEncoding):
    """Compression of answers with gzip, for ``transforms`` of tornado's applications."""

    GZIP_LEVEL = 5

    def __init__(self, request: HTTPServerRequest) -> None:
        super().__init__(request)
        static = "/static/" in request.path
        told = request.headers.get("Sec-Fetch-Site", "") in _OURS
        self._gzipping = self._gzipping and (static or told)

    def _compressible_type(self, ctype: str) -> bool:
        return ctype in _KINDS
