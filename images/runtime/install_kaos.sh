#!/bin/sh
# Lay kaos_hub, its programs and configuration out in LAYER, to be put over ROOT.
# Usage: install_kaos.sh CONTEXT ROOT LAYER
set -eu
context=$1 root=$2 layer=$3
python=$root/bin/python
site=$layer/$(cd "$root" && echo lib/python*)/site-packages

mkdir -p "$site" "$layer/bin" "$layer/libexec" "$layer/exec" "$layer/kernel"
cp -r "$context"/package/* "$site/"
"$python" -I -m compileall -q --invalidation-mode unchecked-hash "$site" > /dev/null || true

# the SDK of the user's kernels, and the launcher, which their Python runs
cp "$site/kaos_hub/workload/notebook/launch.py" "$layer/kernel/launch.py"
for set in "$root"/kernel/cp3*; do
    if [ -d "$set/pydantic" ]; then
        mkdir -p "$layer/kernel/${set##*/}"
        ln -s "../../${site#"$layer"/}/kaos_hub" "$layer/kernel/${set##*/}/kaos_hub"
    fi
done

printf '#!%s -I\nimport sys\n\nfrom kaos_hub.cli import main\n\nsys.exit(main())\n' "$python" > "$layer/libexec/kaos"
cp "$context/fill_volume.py" "$layer/libexec/"
cp "$context/kaos_kernel.py" "$layer/bin/kaos-kernel"
for name in kaos kaos-notebook kaos-run jupyter jupyter-lab jupyterhub-singleuser; do
    cp "$context/program.py" "$layer/bin/$name"
done
for name in kaos jupyter jupyter-lab; do
    ln -s "../bin/$name" "$layer/exec/$name"
done
# for images without a Python of their own
mkdir "$layer/own"
for name in python python3; do
    ln -s ../bin/python "$layer/own/$name"
done
printf '#!%s\nimport sys\n\nfrom pip._internal.cli.main import main\n\nsys.exit(main())\n' "$python" > "$layer/own/pip"
chmod 755 "$layer"/own/pip "$layer"/bin/* "$layer/libexec/kaos"

mkdir -p "$layer/share/jupyter/kernels/python3" "$layer/etc/jupyter" "$layer/etc/xdg/pip"
cp "$context/kernel.json" "$layer/share/jupyter/kernels/python3/"
cp "$context/jupyter_server_config.py" "$layer/etc/jupyter/"
cp "$context/pip.conf" "$layer/etc/xdg/pip/"
chmod -R a+rX "$layer"
