"""Programs of ours that work on what strangers sent, in processes with limits.

What takes too long or too much there ends the process, and nothing else waits for it.
"""

import asyncio
import os
import resource
import signal
import sys

_VARIABLES = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH")


class Exceeded(Exception):
    """The process needed more than it may have.

    Args:
        what: ``time`` or ``memory``.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"too much {what}")


def limit(memory: int, cpu: int) -> None:
    """Bound this process.

    Args:
        memory: bytes of address space.
        cpu: seconds of computing, from now on.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + cpu
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (until, until + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def command(module: str, *arguments: str) -> list[str]:
    """The command line of one of our modules."""
    return [sys.executable, "-P", "-m", module, *arguments]


async def run(module: str, *arguments: str, content: bytes = b"", patience: float) -> bytes:
    """Run one of our modules that bounds itself; what it wrote.

    Args:
        module: its name.
        arguments: of its command line.
        content: what it reads.
        patience: seconds until it is ended.

    Raises:
        Exceeded: it took too long, computed too much, or ended without an answer, which is what
            too little memory does.
    """
    process = await asyncio.create_subprocess_exec(
        *command(module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # None of our secrets is anything to it.
        env={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )  # fmt: skip
    try:
        async with asyncio.timeout(patience):
            output, _ = await process.communicate(content)
    except TimeoutError:
        raise Exceeded("time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Exceeded("time" if process.returncode == -signal.SIGXCPU else "memory")
    return output
