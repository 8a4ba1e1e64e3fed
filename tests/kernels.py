"""Run cells in a notebook as JupyterLab does: through its REST API and a kernel's websocket."""

import asyncio
import json
import uuid
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from tests.hub import request


class Kernel:
    """A kernel of a running notebook.

    Args:
        url: the notebook's.
        token: a token that may use it.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token
        answer = request("POST", f"{url}/api/kernels", token, {"name": "python3"})
        assert answer.status == 201, answer.text
        self.id = answer.json["id"]

    def run(self, code: str, seconds: float = 60) -> str:
        """Execute a cell; what it printed to its standard output, and its result's text.

        Raises:
            AssertionError: the cell raised; the text is its traceback.
        """
        return asyncio.run(asyncio.wait_for(self._run(code, wait=True), seconds))

    def begin(self, code: str) -> None:
        """Begin to execute a cell and hang up at once, as a closed laptop does."""
        asyncio.run(self._run(code, wait=False))

    def state(self) -> str:
        """What its server says of it: busy, idle."""
        answer = request("GET", f"{self._url}/api/kernels/{self.id}", self._token)
        return str(answer.json["execution_state"])

    def end(self) -> None:
        """Shut it down."""
        request("DELETE", f"{self._url}/api/kernels/{self.id}", self._token)

    async def _run(self, code: str, wait: bool) -> str:
        address = f"{self._url}/api/kernels/{self.id}/channels".replace("http", "ws", 1)
        headers = {"Authorization": f"token {self._token}"}
        socket = await websocket_connect(HTTPRequest(address, headers=headers))
        message = _execute_request(code)
        await socket.write_message(json.dumps(message))
        try:
            if wait:
                return await _outputs(socket, message["header"]["msg_id"])
            kind = ""
            while kind != "execute_input":
                kind = json.loads(await socket.read_message() or "{}").get("msg_type")
            return ""
        finally:
            socket.close()


def _execute_request(code: str) -> dict[str, Any]:
    return {
        "channel": "shell",
        "header": {
            "msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3",
            "session": uuid.uuid4().hex, "username": "test", "date": "2026-01-01T00:00:00Z",
        },
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False, "store_history": True, "stop_on_error": True},
    }  # fmt: skip


async def _outputs(socket: Any, request_id: str) -> str:
    said = ""
    while True:
        text = await socket.read_message()
        assert text is not None, "the kernel hung up"
        message = json.loads(text)
        if message.get("parent_header", {}).get("msg_id") != request_id:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream" and content["name"] == "stdout":
            said += content["text"]
        elif kind == "execute_result":
            said += content["data"]["text/plain"]
        elif kind == "error":
            raise AssertionError("\n".join(content["traceback"]))
        elif kind == "status" and content["execution_state"] == "idle":
            return said
