"""What tests of the REST API say and hear on the wire."""

from blake3 import blake3

from kaos_hub.errors import from_body
from tests.hub import Answer


def digest(content: bytes) -> str:
    return f"blake3:{blake3(content).hexdigest()}"


def frame(content: bytes) -> bytes:
    """An object as it is sent."""
    return f"{blake3(content).hexdigest()} {len(content)}\n".encode() + content


def tree(name: str, content: bytes) -> bytes:
    """The node of a directory with one file."""
    return f"kaos tree 1\nf {blake3(content).hexdigest()} {len(content)} {name}\n".encode()


def sized(*contents: bytes) -> dict[str, int]:
    return {digest(c): len(c) for c in contents}


def refused(answer: Answer, status: int, code: str) -> str:
    """Check how something was refused; the message."""
    assert (answer.status, answer.json["code"]) == (status, code), answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    assert from_body(answer.status, answer.json).code == code
    return str(answer.json["message"])
