"""Addresses, as ``s3://BUCKET/PREFIX?endpoint=https://HOST:PORT&region=REGION&style=STYLE``."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from kaos_hub.errors import InvalidRequest

_EXAMPLE = "s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_STYLES = ("path", "virtual")


@dataclass(frozen=True)
class Address:
    """A place in a bucket. Holds no secret."""

    bucket: str
    prefix: str = ""
    """Of all names in the bucket; without slashes at its ends."""
    endpoint: str = ""
    """URL of the server; empty: Amazon's own for the region."""
    region: str = ""
    """Empty: ``$AWS_REGION``, else ``us-east-1``."""
    style: str = "path"
    """The place of the bucket in a request: in the path, or (``virtual``) in the host's name."""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read an address.

        Raises:
            InvalidRequest: it is none; says what is wrong.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or parts.fragment:
            raise InvalidRequest(f"{_hidden(url)!r} is no store's URL; one looks like {_EXAMPLE}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = set(options) - {"endpoint", "region", "style"}
        if unknown:
            raise InvalidRequest(
                f"a store's URL has no {min(unknown)!r}; it may have endpoint, region and style:"
                f" {_EXAMPLE}. Credentials do not belong there: see docs/howto/storage.md"
            )
        endpoint = options.get("endpoint", "").rstrip("/")
        style = options.get("style") or ("path" if endpoint else "virtual")
        if style not in _STYLES:
            raise InvalidRequest(f"style={style} in a store's URL: it is `path` or `virtual`")
        _check_endpoint(endpoint)
        prefix = unquote(parts.path).strip("/")
        return cls(parts.netloc, prefix, endpoint, options.get("region", ""), style)

    @property
    def url(self) -> str:
        """As it is written."""
        usual = "path" if self.endpoint else "virtual"
        said = {
            "endpoint": self.endpoint,
            "region": self.region,
            "style": self.style if self.style != usual else "",
        }
        query = urlencode({name: value for name, value in said.items() if value}, safe=":/")
        path = f"/{quote(self.prefix)}" if self.prefix else ""
        return f"s3://{self.bucket}{path}{'?' if query else ''}{query}"

    @property
    def server(self) -> str:
        """The server, for people."""
        return self.endpoint or f"Amazon S3{f' ({self.region})' if self.region else ''}"

    def key(self, name: str) -> str:
        """The whole name of an object."""
        return f"{self.prefix}/{name}" if self.prefix else name


def _check_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if not endpoint:
        return
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise InvalidRequest(
            f"endpoint={_hidden(endpoint)} in a store's URL: it is the URL of a server, like"
            " https://s3.example.org"
        )
    if parts.username is not None:
        raise InvalidRequest(
            "The endpoint in a store's URL holds a name or password. Credentials do not belong"
            " there: see docs/howto/storage.md"
        )


def _hidden(url: str) -> str:
    """A wrong URL as it may be shown: what stands before an `@` may be a password."""
    return re.sub(r"//[^/@]*@", "//…@", url)
