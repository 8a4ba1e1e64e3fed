"""Container registries, over their HTTP API: what a tag means, what is there, and bringing more.

Small on purpose: three verbs for reading and three for writing, anonymous or with a password, on
urllib3. It runs in the service and, as part of the runtime, in the step that pushes an image.
"""

import base64
import contextlib
import hashlib
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

from kaos_hub.errors import EngineUnavailable, NotFound
from kaos_hub.registry.answers import (
    NO_ENTRY,
    Patience,
    core,
    no_certificates,
    no_entry,
    said,
    silence,
)
from kaos_hub.registry.names import (
    DOCKER_HUB,
    INDEXES,
    MANIFESTS,
    OCI_MANIFEST,
    Manifest,
    Reference,
    Ways,
    logins,
)

__all__ = ["OCI_MANIFEST", "Manifest", "Reference", "Registries", "Ways", "logins", "trusting"]

_DOCKER_HUB_API = "registry-1.docker.io"
_ACCEPT = ", ".join(INDEXES + MANIFESTS)
_CHUNK = 1 << 20
_LARGEST_JSON = 8 << 20


class Registries:
    """Asks registries. Everything blocks; threads may share it.

    Args:
        ways: how they are reached.
        timeout: seconds to wait for a connection or for more of an answer.

    Raises:
        EngineUnavailable: what should be certificates is none.
    """

    def __init__(self, ways: Ways, timeout: float = 30) -> None:
        self._ways = ways
        retry = Patience(3, redirect=5, backoff_factor=0.3, status_forcelist=(502, 503, 504))
        retry.respect_retry_after_header = False
        retry.raise_on_status = False
        self._options: dict[str, Any] = {
            "timeout": Timeout(connect=min(timeout, 10), read=timeout),
            "retries": retry,
        }
        self._strict = PoolManager(ssl_context=trusting(ways))
        careless = ssl.create_default_context()
        careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
        self._careless = PoolManager(ssl_context=careless)
        self._schemes: dict[str, str] = {}
        self._tokens: dict[tuple[str, str, bool], str] = {}

    def close(self) -> None:
        """Close connections."""
        self._strict.clear()
        self._careless.clear()

    # --- reading ---

    def manifest(self, reference: Reference) -> Manifest:
        """Return the manifest that a reference means now.

        Raises:
            NotFound: there is no such image, or we may not see it; says where it was looked for.
            EngineUnavailable: no registry answers.
        """
        refused: list[str] = []
        silent: list[str] = []
        details: dict[str, Any] = {}
        for place in self._places(reference):
            try:
                answer = self._ask("GET", place, f"manifests/{place.what}", {"Accept": _ACCEPT})
            except EngineUnavailable as e:
                silent.append(e.message)
                details |= e.details
                continue
            if answer.status == 200:
                return _manifest(place, answer)
            refused.append(f"{place.registry} answers {said(answer)}")
        problems = "; ".join(refused + silent)
        if silent and not refused:
            raise EngineUnavailable(f"Nobody can say what {reference} is: {problems}", **details)
        raise NotFound(f"There is no image {reference}: {problems}")

    def image(self, manifest: Manifest, architecture: str, system: str = "linux") -> Manifest:
        """The manifest of one platform; itself if it is no index.

        Raises:
            NotFound: it is not made for that platform.
        """
        if not manifest.is_index:
            return manifest
        for entry in manifest.json.get("manifests", ()):
            platform = entry.get("platform", {})
            if (platform.get("os"), platform.get("architecture")) == (system, architecture):
                where = manifest.where
                return self.manifest(
                    Reference(where.registry, where.repository, digest=entry["digest"])
                )
        raise NotFound(f"{manifest.where} is not made for {system}/{architecture}")

    def has(self, reference: Reference) -> bool:
        """Return whether the image is there.

        Raises:
            EngineUnavailable: a registry does not answer, or does not accept our login.
        """
        for place in self._places(reference):
            answer = self._ask("HEAD", place, f"manifests/{place.what}", {"Accept": _ACCEPT})
            if answer.status == 200:
                return True
        return False

    def has_login(self, reference: Reference) -> bool:
        """Return whether we have a password for its registry, or for the mirror of that."""
        return any(place.registry in self._ways.logins for place in self._places(reference))

    def json_blob(self, where: Reference, digest: str) -> dict[str, Any]:
        """A small blob, like an image's configuration, as JSON; verified."""
        body = b"".join(self.blob(where, digest))
        found: dict[str, Any] = json.loads(body)
        return found

    def blob(self, where: Reference, digest: str) -> Iterator[bytes]:
        """A blob's content, in pieces.

        Raises:
            NotFound: it is not there, or the content is not that digest's.
        """
        answer = self._ask("GET", where, f"blobs/{digest}", stream=True)
        try:
            if answer.status != 200:
                raise NotFound(f"{where.name} has no blob {digest}: {said(answer)}")
            seen = hashlib.sha256()
            for piece in answer.stream(_CHUNK, decode_content=False):
                seen.update(piece)
                yield piece
        except HTTPError as e:
            raise EngineUnavailable(f"{where.registry} broke off: {core(e)}") from None
        finally:
            answer.release_conn()
        if f"sha256:{seen.hexdigest()}" != digest:
            raise NotFound(f"{where.name} gave something else for {digest}")

    # --- writing ---

    def has_blob(self, where: Reference, digest: str) -> bool:
        """Return whether a repository has a blob.

        Raises:
            EngineUnavailable: the registry does not answer, or does not let us in.
        """
        answer = self._ask("HEAD", where, f"blobs/{digest}", writing=True)
        if answer.status in NO_ENTRY:
            raise no_entry(self._ways, where.registry, answer)
        return answer.status == 200

    def mount(self, where: Reference, digest: str, origin: str) -> bool:
        """Have a blob of another repository of the same registry here, too; whether that worked."""
        query = urlencode({"mount": digest, "from": origin})
        answer = self._ask("POST", where, f"blobs/uploads/?{query}", writing=True)
        return answer.status == 201

    def upload(self, where: Reference, digest: str, body: IO[bytes], size: int) -> None:
        """Send a blob of ``size`` bytes.

        Raises:
            EngineUnavailable: the registry refuses it; says what it said.
        """
        begun = self._ask("POST", where, "blobs/uploads/", writing=True)
        if begun.status in NO_ENTRY:
            raise no_entry(self._ways, where.registry, begun)
        if begun.status != 202:
            raise EngineUnavailable(f"{where.name} takes no upload: {said(begun)}")
        parts = urlsplit(urljoin(f"{self._base(where)}/", begun.headers["Location"]))
        query = urlencode([*parse_qsl(parts.query), ("digest", digest)])
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        done = self._ask("PUT", where, urlunsplit(parts._replace(query=query)), headers, body,
                         writing=True)  # fmt: skip
        if done.status != 201:
            raise EngineUnavailable(f"{where.name} refuses a layer: {said(done)}")

    def put_manifest(self, where: Reference, body: bytes, media_type: str = OCI_MANIFEST) -> str:
        """Make a tag mean a manifest; returns its digest.

        Raises:
            EngineUnavailable: the registry refuses it; says what it said.
        """
        headers = {"Content-Type": media_type}
        done = self._ask("PUT", where, f"manifests/{where.what}", headers, body, writing=True)
        if done.status != 201:
            raise EngineUnavailable(f"{where} is refused: {said(done)}")
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    # --- asking ---

    def _places(self, reference: Reference) -> Iterator[Reference]:
        mirror = self._ways.mirrors.get(reference.registry)
        if mirror:
            host, _, prefix = mirror.partition("/")
            repository = f"{prefix.rstrip('/')}/{reference.repository}".lstrip("/")
            yield Reference(host, repository, reference.tag, reference.digest)
        yield reference

    def _base(self, place: Reference) -> str:
        host = _DOCKER_HUB_API if place.registry == DOCKER_HUB else place.registry
        return f"{self._schemes.get(place.registry, 'https')}://{host}"

    def _ask(
        self, method: str, place: Reference, path: str, headers: Mapping[str, str] | None = None,
        body: Any = None, stream: bool = False, writing: bool = False,
    ) -> BaseHTTPResponse:  # fmt: skip
        """One question, with a token if the registry wants one.

        A body is a file only where the registry has given a token a moment before, so it is never
        sent twice.

        Raises:
            EngineUnavailable: it does not answer, or lets us in nowhere at all.
        """
        key = (place.registry, place.repository, writing)
        for attempt in range(2):
            sent = dict(headers or {})
            if key in self._tokens:
                sent["Authorization"] = self._tokens[key]
            answer = self._send(method, place, path, sent, body, stream)
            if answer.status != 401:
                return answer
            if attempt or not self._log_in(key, answer):
                break
        # One that gives out tokens may refuse what is not there, too.
        if _challenge(answer)[0] == "basic":
            raise no_entry(self._ways, place.registry, answer)
        return answer

    def _send(
        self, method: str, place: Reference, path: str, headers: Mapping[str, str],
        body: Any, stream: bool,
    ) -> BaseHTTPResponse:  # fmt: skip
        insecure = place.registry in self._ways.insecure
        pool = self._careless if insecure else self._strict
        # An insecure registry mostly speaks plain HTTP; a TLS one answers that with an error.
        known = place.registry in self._schemes
        for scheme in ["http", "https"] if insecure and not known else [""]:
            if scheme:
                self._schemes[place.registry] = scheme
            url = path if "//" in path else f"{self._base(place)}/v2/{place.repository}/{path}"
            try:
                answer = pool.request(method, url, body=body, headers=headers, redirect=True,
                                      preload_content=not stream, **self._options)  # fmt: skip
            except (HTTPError, OSError) as e:
                self._schemes.pop(place.registry, None)
                if scheme != "http":
                    raise silence(self._ways, place.registry, e) from None
                continue
            if scheme != "http" or answer.status != 400:
                return answer
        return answer

    def _log_in(self, key: tuple[str, str, bool], answer: BaseHTTPResponse) -> bool:
        """Get what the registry asks for; whether there is something to try again with.

        Raises:
            EngineUnavailable: the server of its tokens does not answer, or refuses our login.
        """
        registry, repository, writing = key
        kind, rest = _challenge(answer)
        login = self._ways.logins.get(registry)
        basic = base64.b64encode(":".join(login).encode()).decode() if login else ""
        if kind == "basic" and basic:
            self._tokens[key] = f"Basic {basic}"
            return True
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if kind != "bearer" or "realm" not in asked:
            return False
        scope = f"repository:{repository}:pull{',push' if writing else ''}"
        query = urlencode({"service": asked.get("service", ""), "scope": scope})
        headers = {"Authorization": f"Basic {basic}"} if basic else {}
        pool = self._careless if registry in self._ways.insecure else self._strict
        try:
            given = pool.request("GET", f"{asked['realm']}?{query}", headers=headers,
                                 **self._options)  # fmt: skip
            if given.status in NO_ENTRY:
                raise no_entry(self._ways, registry, given)
            token = given.json().get("token") or given.json().get("access_token")
        except (HTTPError, OSError, ValueError) as e:
            raise EngineUnavailable(f"{registry} gives no token: {core(e)}") from None
        if token:
            self._tokens[key] = f"Bearer {token}"
        return bool(token)


def _challenge(answer: BaseHTTPResponse) -> tuple[str, str]:
    """Return the kind of login that a registry asks for, and the particulars."""
    kind, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
    return kind.lower(), rest


def trusting(ways: Ways) -> ssl.SSLContext:
    """A context that trusts what the system does, and the admin's CA.

    Raises:
        EngineUnavailable: what should be certificates is none.
    """
    context = ssl.create_default_context()
    if not context.get_ca_certs():
        # In the runtime there is no system whose certificates could be used.
        with contextlib.suppress(ImportError):
            import certifi

            context.load_verify_locations(certifi.where())
    if ways.ca and Path(ways.ca).exists():
        # Newer Pythons refuse what many a company's own CA lacks, and no other program misses.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        try:
            context.load_verify_locations(ways.ca)
        except (ssl.SSLError, OSError) as e:
            raise no_certificates(ways, e) from None
    return context


def _manifest(place: Reference, answer: BaseHTTPResponse) -> Manifest:
    body = answer.data
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if len(body) > _LARGEST_JSON or (place.digest and place.digest != digest):
        raise NotFound(f"{place.registry} gave something else for {place}")
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    return Manifest(digest, media_type, body, place)
