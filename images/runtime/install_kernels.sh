#!/bin/sh
# Make ROOT/kernel/cpXY, a set of packages per version of CPython that turns the user's Python into a kernel.
# What is equal in several sets (and in the runtime's own environment) is stored once.
# Usage: install_kernels.sh ROOT
set -eu
root=$1
kernel=$root/kernel
machine=$(uname -m)

for version in 3.8 3.9 3.10 3.11 3.12 3.13 3.14; do
    # the oldest C library that there are wheels for: 2.17 (2014), or 2.28 (Debian 10, Ubuntu 20.04, RHEL 8)
    case $version in
        3.8 | 3.9) platform=$machine-manylinux2014 ;;
        *) platform=$machine-manylinux_2_28 ;;
    esac
    case $version in
        3.8 | 3.9 | 3.10) sdk= ;;
        *) sdk='--requirement /build/sdk-requirements.txt' ;;
    esac
    set=$kernel/cp$(echo $version | tr -d .)
    # shellcheck disable=SC2086
    uv pip install --quiet --target "$set" --python-version $version --python-platform "$platform" \
        --only-binary :all: --constraint /build/constraints.txt ipykernel $sdk
    # debugpy in pure Python is one copy for all; the compiled one would be 9 MB for each
    rm -rf "$set"/debugpy*
    uv pip install --quiet --target "$set" --python-version $version --python-platform riscv64-unknown-linux \
        --no-deps --only-binary :all: --constraint /build/constraints.txt debugpy
done

rm -rf "$kernel"/*/bin "$kernel"/*/share "$kernel"/*/.lock
rm -rf "$kernel"/*/jedi/third_party/django-stubs "$kernel"/*/debugpy/_vendored/pydevd/pydevd_attach_to_process
find "$kernel" -type d -name tests -prune -exec rm -rf {} +
find "$kernel" -path '*/debugpy/*' \( -name '*.c' -o -name '*.pyx' -o -name '*.dll' \) -delete

"$root/bin/python" -I /build/manifest.py "$kernel" /build/sdk-requirements.txt
"$root/bin/python" -I /build/dedupe.py "$kernel/store" "$root"/lib/python*/site-packages "$kernel"/cp*

# Compiled once, here: nothing under a read-only mount can be compiled later. Times of files do not matter
# then. Some packages bring files that are no Python, on purpose.
own=$("$root/bin/python" -I -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
"$root/bin/python" -I -m compileall -q -j 2 --invalidation-mode unchecked-hash \
    "$root"/python/lib/python* "$root"/lib/python* "$kernel/store" "$kernel/$own" > /dev/null || true
rm -f "$root/.lock"
chmod -R a+rX "$root"
