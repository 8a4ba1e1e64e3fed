"""Which engines the tests of the whole run on."""

import subprocess
from functools import cache

import pytest


@cache
def docker_answers() -> bool:
    """Whether a Docker Engine is there."""
    try:
        asked = subprocess.run(["docker", "version"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


needs_docker = pytest.mark.skipif(not docker_answers(), reason="no Docker Engine answers")

ENGINES = [
    pytest.param("local", id="local"),
    pytest.param("docker", id="docker", marks=[pytest.mark.docker, needs_docker]),
]
