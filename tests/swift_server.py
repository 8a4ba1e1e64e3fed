"""OpenStack Swift with its S3 API in front, all in one process; run by Swift's own Python.

    python swift_server.py FOLDER ACCOUNT:USER SECRET

Prints the URL when it answers, and ends when its standard input does. Needs only Swift.
"""

import socket
import sys
from pathlib import Path
from typing import Any

import eventlet

eventlet.monkey_patch()

from eventlet import tpool, wsgi  # noqa: E402
from swift.common import utils  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

KINDS = ("account", "container", "object")
BEHIND = """
[DEFAULT]
devices = {folder}
swift_dir = {folder}
mount_check = false
log_level = ERROR
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
FRONT = """
[DEFAULT]
swift_dir = {folder}
log_level = ERROR
[pipeline:main]
pipeline = catch_errors s3api tempauth bulk slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
# One process is all of them: when many ask, each waits for itself.
conn_timeout = 30
node_timeout = 60
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
max_upload_part_num = 10000
[filter:tempauth]
use = egg:swift#tempauth
user_{user} = {secret} .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
"""


def main(folder: Path, user: str, secret: str) -> None:
    (folder / "disk").mkdir(parents=True)
    utils.SWIFT_CONF_FILE = str(folder / "swift.conf")  # not in /etc/swift
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    for kind in KINDS:
        listening = eventlet.listen(("127.0.0.1", 0))
        _ring(folder / f"{kind}.ring.gz", listening.getsockname()[1])
        _serve(folder / f"{kind}.conf", BEHIND.format(folder=folder, kind=kind), listening)
    listening = eventlet.listen(("127.0.0.1", 0))
    said = FRONT.format(folder=folder, user=user.replace(":", "_"), secret=secret)
    _serve(folder / "proxy.conf", said, listening)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    tpool.execute(sys.stdin.read)


def _ring(path: Path, port: int) -> None:
    """Where everything is: on the one disk of the one server."""
    here = {"ip": "127.0.0.1", "port": port}
    replication: dict[str, Any] = {f"replication_{name}": value for name, value in here.items()}
    builder = RingBuilder(1, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "weight": 1, "device": "disk", **here, **replication})
    builder.rebalance()
    builder.get_ring().save(str(path))


def _serve(path: Path, settings: str, listening: socket.socket) -> None:
    path.write_text(settings)
    eventlet.spawn(wsgi.server, listening, loadapp(str(path)), log_output=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
