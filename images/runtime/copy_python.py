"""Copy the Python that runs this, with every library it needs, so that it works in any image.

The C library and its loader come along, the interpreter is told to use that loader, and libraries are found
by DT_RPATH, which comes before the LD_LIBRARY_PATH of whatever image we are mounted over.

Usage: copy_python.py TARGET
"""

import glob
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

UNWANTED = {
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages",
    "test", "tests", "tkinter", "turtledemo",
}  # fmt: skip
# Loaded by name, so that no program lists them: name services, and what wheels of C++ and Rust expect.
BY_NAME = (
    "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libnss_compat.so.2", "libnss_dns.so.2", "libnss_files.so.2",
    "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libstdc++.so.6", "libutil.so.1", "libz.so.1",
)  # fmt: skip


def unwanted(directory: str, names: list[str]) -> list[str]:
    return [n for n in names if n in UNWANTED or n.startswith("config-") or n.endswith(".a")]


def needed(programs: list[str]) -> dict[str, str]:
    """File name → path of all libraries that the programs load, the loader included."""
    found: dict[str, str] = {}
    for program in programs:
        listing = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        for line in listing.splitlines():
            match = re.match(r"\s*(?:(\S+) => )?(/\S+) \(", line)
            if match:
                found[match[1] or os.path.basename(match[2])] = match[2]
    return found


def by_name(directories: set[str]) -> dict[str, str]:
    """The libraries of :data:`BY_NAME` that are there."""
    places = [os.path.join(d, name) for d in directories for name in BY_NAME]
    extra = [
        p for d in ("/lib", "/usr/lib") for n in BY_NAME for p in glob.glob(f"{d}/*-linux-gnu/{n}")
    ]
    return {os.path.basename(p): p for p in places + extra if os.path.exists(p)}


def patch(*arguments: str) -> None:
    subprocess.run(["patchelf", *arguments], check=True)


def main(target: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    lib = target / "lib"
    stdlib = lib / version
    shutil.copytree(sysconfig.get_path("stdlib"), stdlib, ignore=unwanted, symlinks=False)
    (target / "bin").mkdir()
    program = shutil.copy(os.path.realpath(sys.executable), target / "bin" / version)
    extensions = glob.glob(f"{stdlib}/lib-dynload/*.so")

    libraries = needed([str(program), *extensions])
    libraries |= by_name({os.path.dirname(p) for p in libraries.values()})
    loader = next(name for name in libraries if name.startswith("ld-linux"))
    for name, path in libraries.items():
        shutil.copy(os.path.realpath(path), lib / name)
        (lib / name).chmod(0o755)
        # the C library and its loader find nothing by a path, and do not survive being patched
        if not name.startswith(("ld-linux", "libc.so")):
            patch("--force-rpath", "--set-rpath", "$ORIGIN", str(lib / name))
    patch(
        "--set-interpreter",
        str(lib / loader),
        "--force-rpath",
        "--set-rpath",
        str(lib),
        str(program),
    )
    print(f"{program}: {len(libraries)} libraries")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
