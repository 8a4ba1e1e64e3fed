"""Refusals of registries, to us or to a builder, in words for people.

Where only the admin can help, the message names the setting to look at, and so do the details of
the error: whatever is tried again would fail again.
"""

import re
from typing import Any, Self

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import HTTPError, SSLError

from kaos_hub.errors import EngineUnavailable
from kaos_hub.registry.names import Ways

NO_ENTRY = (401, 403)
_INSECURE = "KubernetesEngine.insecure_registries"
_NO_TLS = ("WRONG_VERSION_NUMBER", "record layer failure")


class Patience(Retry):
    """Tries again, but not what is trusted as little the next time."""

    def increment(
        self, method: str | None = None, url: str | None = None, response: Any = None,
        error: Exception | None = None, *more: Any, **most: Any,
    ) -> Self:  # fmt: skip
        """Return the tries that are left, after an error or an answer."""
        hopeless = ("CERTIFICATE_VERIFY_FAILED", *_NO_TLS)
        if isinstance(error, SSLError) and any(word in str(error) for word in hopeless):
            raise error
        return super().increment(method, url, response, error, *more, **most)


def said(answer: BaseHTTPResponse) -> str:
    """Return what the registry said of an error, in short."""
    try:
        errors = answer.json()["errors"]
        return f"{answer.status}: {errors[0].get('message') or errors[0]['code']}"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, HTTPError):
        return str(answer.status)


def no_entry(ways: Ways, registry: str, answer: BaseHTTPResponse) -> EngineUnavailable:
    """It wants another login than it was given, or one at all."""
    setting = ways.login_setting
    if registry not in ways.logins:
        advice = f"the admin can give one with {setting}"
        text = f"{registry} wants a login ({said(answer)}): {advice}"
        return EngineUnavailable(text, setting=setting)
    what = "does not accept our login" if answer.status == 401 else "does not let our login do that"
    advice = f"the admin has to look at {setting}"
    return EngineUnavailable(f"{registry} {what} ({said(answer)}): {advice}", setting=setting)


def silence(ways: Ways, registry: str, error: BaseException) -> EngineUnavailable:
    """It doesn't answer, or not in a way that we trust."""
    text = core(error)
    why = re.search(r"certificate verify failed: (.+?)(?: \(_ssl\.c|$)", text)
    if why and "expired" in why[1]:
        advice = "whoever runs the registry has to renew it"
        text = f"The certificate of {registry}, or of its CA, has expired: {advice}"
        return EngineUnavailable(text, setting=ways.ca_setting)
    if why:
        advice = f"the admin has to name its CA with {ways.ca_setting}"
        text = f"The certificate of {registry} is not trusted ({why[1]}): {advice}"
        return EngineUnavailable(text, setting=ways.ca_setting)
    if any(word in text for word in _NO_TLS):
        advice = f"if it is meant to do without, the admin has to name it in {_INSECURE}"
        return EngineUnavailable(f"{registry} does not speak TLS: {advice}", setting=_INSECURE)
    return EngineUnavailable(f"{registry} does not answer: {text}")


def no_certificates(ways: Ways, error: OSError) -> EngineUnavailable:
    """Make the error for a file that should hold certificates to trust, but does not."""
    advice = f"the admin has to look at {ways.ca_setting}"
    text = f"{ways.ca} holds no certificates ({error.strerror or error}): {advice}"
    return EngineUnavailable(text, setting=ways.ca_setting)


_REFUSED_BASE = (
    (
        r"x509: (.+)",
        "the certificate of the registry of {} is not trusted here ({}); an admin can add its CA"
        " (KubernetesEngine.ca_configmap)",
    ),
    (
        r"server gave HTTP response to HTTPS client()",
        "the registry of {} does not speak TLS; an admin can allow that"
        " (KubernetesEngine.insecure_registries)",
    ),
    (
        r"(?:denied|unauthorized|authentication required)()",
        "there is no image {}, or its registry wants a login; an admin can give builds one"
        " (KubernetesEngine.base_secret)",
    ),
)


def refused_base(log: str) -> str:
    """Say why a build in a cluster has no base image; empty unless only an admin can help."""
    for words, text in _REFUSED_BASE:
        found = re.search(rf"initializing source \w+://([^\s@]+?)(?:@\S+?)?: .*{words}", log)
        if found:
            return text.format(*found.groups())
    return ""


def core(error: BaseException) -> str:
    """The cause, without what it went through."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return core(reason)
    text = error.args[-1] if error.args and isinstance(error.args[-1], str) else str(error)
    return re.sub(r"^(?:<\S+ object at \w+>|HTTPS?Connection(?:Pool)?\(.*?\)): ", "", text)
