"""Build the images that a hub in a cluster needs, and push them.

    python images/make.py [--registry REGISTRY] [--push] [--env FILE] [NAME...]

Names are hub, builder, notebook and runtime; all without any. With ``--env`` the references are
written to a file; by digest if they were pushed, so that nobody ever runs an older image of the
same name.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from kaos_hub import __version__
from kaos_hub.deployment.docker_bridge import engine
from kaos_hub.engines import runtime_image
from kaos_hub.errors import KaosError

HERE = Path(__file__).parent
CONTEXTS = {"hub": HERE.parent, "builder": HERE / "builder", "notebook": HERE / "notebook"}
NAMES = (*CONTEXTS, "runtime")


def reference(name: str, registry: str) -> str:
    """What an image is called."""
    return "/".join(filter(None, [registry, f"kaos-hub/{name}:{__version__}"]))


def build(name: str, called: str) -> None:
    """Build an image."""
    print(f"building {called}", file=sys.stderr)
    if name == "runtime":
        with engine(timeout=1800) as client:
            made = runtime_image.ensure_image(client, lambda line: None)
        run("docker", "tag", made, called)
        return
    dockerfile, version = HERE / name / "Dockerfile", f"VERSION={__version__}"
    run(
        "docker",
        "build",
        "-q",
        "-f",
        dockerfile,
        "-t",
        called,
        "--build-arg",
        version,
        CONTEXTS[name],
    )


def push(called: str) -> str:
    """Push an image; returns its reference by digest."""
    print(f"pushing {called}", file=sys.stderr)
    run("docker", "push", "-q", called)
    repository = called.rpartition(":")[0]
    digests = run("docker", "inspect", "--format", '{{join .RepoDigests "\\n"}}', called).split()
    return next(d for d in digests if d.rpartition("@")[0] == repository)


def run(*command: str | Path) -> str:
    """Run a command; returns what it said.

    Raises:
        KaosError: it failed; says with what words.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        raise KaosError(f"{' '.join(map(str, command))} failed:\n{said}")
    return done.stdout


def main() -> int:
    """Build, push, write down."""
    parser = argparse.ArgumentParser(description="Build the images of kaos_hub.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--registry", default="", help="in front of kaos-hub/<name>")
    parser.add_argument("--push", action="store_true", help="push them there")
    parser.add_argument("--env", type=Path, help="write their references to this file")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"no image {min(unknown)!r}; there are {', '.join(NAMES)}")
    references = {}
    try:
        for name in given.names or NAMES:
            called = reference(name, given.registry)
            build(name, called)
            references[name] = push(called) if given.push else called
    except KaosError as e:
        print(f"images: {e.message}", file=sys.stderr)
        return 1
    lines = [f"KAOS_{name.upper()}_IMAGE={called}\n" for name, called in references.items()]
    if given.env:
        given.env.parent.mkdir(parents=True, exist_ok=True)
        given.env.write_text("".join(lines))
    print("".join(lines), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
