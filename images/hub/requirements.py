"""Print what Hub, service and proxy of a cluster need, from the setup.cfg beside this.

The exact versions are in constraints.txt, made from what this prints by
  uv pip compile --universal --python-version 3.13 --no-header --no-annotate requirements.in \\
      -o constraints.txt

That is the extras hub, kubernetes, postgresql and s3, less what only other engines use.
"""

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

EXTRAS = ("hub", "kubernetes", "postgresql", "s3")
ELSEWHERE = {"docker", "dockerspawner", "dulwich", "jupyterlab", "uv"}
"""For notebooks and builds on this machine; in a cluster these bring their own."""
MORE = ("oauthenticator>=17,<18", "pycurl>=7.45.3")
"""Logins by others; and what the Hub's configuration of zero-to-jupyterhub asks for."""


def requirements(setup: Path) -> Iterator[str]:
    """One requirement after the other."""
    config = configparser.ConfigParser()
    config.read(setup)
    given = [config["options.extras_require"][extra] for extra in EXTRAS]
    for line in "\n".join([config["options"]["install_requires"], *given]).split():
        if re.split(r"[^\w-]", line)[0] not in ELSEWHERE:
            yield line
    yield from MORE


if __name__ == "__main__":
    print("\n".join(requirements(Path(__file__).with_name("setup.cfg"))))
