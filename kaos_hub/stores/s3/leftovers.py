"""Uploads in parts that a killed service left unfinished: they cost space without being seen.

obstore takes back what fails, but cannot list what it does not know of. So these few requests are
ours, and obstore only signs their addresses: thus they work with whatever gives it its key. A rule
of the bucket that ends unfinished uploads does the same, where the server knows such rules.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote
from xml.etree import ElementTree

import obstore
import urllib3

from kaos_hub.errors import Unavailable
from kaos_hub.stores.s3.client import Client, certificates

log = logging.getLogger("kaos.store")

_VALID = timedelta(minutes=5)
_LONGEST = 4 << 20
"""Bytes of a list of a thousand uploads, and much more."""


@dataclass(frozen=True)
class Unfinished:
    """An upload in parts that was begun."""

    key: str
    upload: str
    begun: datetime


class Leftovers:
    """Finds and takes back unfinished uploads below the prefix of a store. Blocks.

    Args:
        client: the bucket.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=30), retries=False, ca_certs=certificates()
        )

    def take_back(self, age: timedelta) -> int:
        """Take back what is older; how many that were.

        Raises:
            Unavailable: the server does not do that.
        """
        before = datetime.now(UTC) - age
        old = [one for one in self.list() if one.begun < before]
        for one in old:
            query = f"uploadId={quote(one.upload, safe='')}"
            self._ask("DELETE", f"/{quote(one.key)}?{query}", (204, 200, 404))
        return len(old)

    def list(self) -> Iterator[Unfinished]:
        """All that are unfinished.

        Raises:
            Unavailable: the server does not tell.
        """
        prefix = quote(self._client.address.key("objects/"), safe="")
        after = ""
        while True:
            text = self._ask("GET", f"?uploads=&prefix={prefix}{after}", (200,))
            answer = _parse(text)
            for found in answer.iterfind("{*}Upload"):
                begun = datetime.fromisoformat(_text(found, "Initiated"))
                yield Unfinished(_text(found, "Key"), _text(found, "UploadId"), begun)
            if _text(answer, "IsTruncated") != "true":
                return
            key = quote(_text(answer, "NextKeyMarker"), safe="")
            upload = quote(_text(answer, "NextUploadIdMarker"), safe="")
            after = f"&key-marker={key}&upload-id-marker={upload}"

    def _ask(self, method: Literal["GET", "DELETE"], what: str, good: tuple[int, ...]) -> bytes:
        # The name of the object that obstore appends becomes the value of a parameter that no
        # server knows; what it signs is the whole address.
        bucket = self._client.open(f"{self._client.root}{what}&x-of=")
        with self._client.errors():
            url = obstore.sign(bucket, method, "kaos", _VALID)
        try:
            answer = self._http.request(method, url, preload_content=False)
            text = answer.read(_LONGEST)
            answer.release_conn()
        except urllib3.exceptions.HTTPError:  # its text holds the signed address
            raise Unavailable(f"{self._client.address.server} does not answer") from None
        if answer.status not in good:
            raise Unavailable(f"{self._client.address.server} answers with {answer.status}")
        return text


def _parse(text: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - from the server that holds all bytes
    except ElementTree.ParseError:
        raise Unavailable("the list of unfinished uploads cannot be read") from None


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""
