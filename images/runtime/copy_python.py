"""Copy the Python that runs this, with every library it needs, so that it works in any image.

The C library and its loader come along, the interpreter is told to use that loader, and libraries
are found by DT_RPATH, which comes before the LD_LIBRARY_PATH of whatever image we are mounted over.

Usage: copy_python.py TARGET
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

UNWANTED = {
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "test", "tests", "tkinter", "turtledemo",
}  # fmt: skip
# Loaded by name, so that no program lists them: name services, and what wheels of C++ and Rust
# expect.
BY_NAME = (
    "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libnss_compat.so.2", "libnss_dns.so.2",
    "libnss_files.so.2", "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libstdc++.so.6",
    "libutil.so.1", "libz.so.1",
)  # fmt: skip


def unwanted(directory: str, names: list[str]) -> list[str]:
    return [n for n in names if n in UNWANTED or n.startswith("config-") or n.endswith(".a")]


def needed(programs: list[Path]) -> dict[str, Path]:
    """File name → path of all libraries that the programs load, the loader included."""
    found: dict[str, Path] = {}
    for program in programs:
        listing = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        for line in listing.splitlines():
            match = re.match(r"\s*(?:(\S+) => )?(/\S+) \(", line)
            if match:
                path = Path(match[2])
                found[match[1] or path.name] = path
    return found


def by_name(directories: set[Path]) -> dict[str, Path]:
    """The libraries of :data:`BY_NAME` that are there."""
    multiarch = [d for top in ("/lib", "/usr/lib") for d in Path(top).glob("*-linux-gnu")]
    places = [d / name for d in [*directories, *multiarch] for name in BY_NAME]
    return {p.name: p for p in places if p.exists()}


def patch(*arguments: str | Path) -> None:
    subprocess.run(["patchelf", *arguments], check=True)


def main(target: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    lib = target / "lib"
    stdlib = lib / version
    shutil.copytree(sysconfig.get_path("stdlib"), stdlib, ignore=unwanted, symlinks=False)
    program = target / "bin" / version
    program.parent.mkdir()
    shutil.copy(Path(sys.executable).resolve(), program)

    libraries = needed([program, *stdlib.glob("lib-dynload/*.so")])
    libraries |= by_name({p.parent for p in libraries.values()})
    loader = next(name for name in libraries if name.startswith("ld-linux"))
    for name, path in libraries.items():
        shutil.copy(path.resolve(), lib / name)
        (lib / name).chmod(0o755)
        # the C library and its loader find nothing by a path, and do not survive being patched
        if not name.startswith(("ld-linux", "libc.so")):
            patch("--force-rpath", "--set-rpath", "$ORIGIN", lib / name)
    patch("--set-interpreter", lib / loader, "--force-rpath", "--set-rpath", lib, program)
    print(f"{program}: {len(libraries)} libraries")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
