#!/bin/sh
# Make ROOT a virtual environment around ROOT/python, with JupyterLab, JupyterHub and the needs of the SDK.
# Usage: install_environment.sh ROOT JUPYTERHUB-REQUIREMENT
set -eu
root=$1 jupyterhub=$2
program=$(basename "$root"/python/bin/python*)
site=$root/lib/$program/site-packages

mkdir -p "$root/bin" "$site"
ln -s "../python/bin/$program" "$root/bin/python"
printf 'home = %s/python/bin\ninclude-system-site-packages = false\nversion = %s\n' \
    "$root" "${program#python}" > "$root/pyvenv.cfg"
uv pip install --quiet --python "$root/bin/python" --constraint /build/constraints.txt \
    --requirement /build/sdk-requirements.txt dulwich jupyterlab "$jupyterhub" pip

# programs get out of the way of those of the user's image; -I keeps PYTHONPATH and home packages out
mv "$root/bin" "$root/libexec"
mkdir "$root/bin"
mv "$root/libexec/python" "$root/bin/python"
rm -f "$root"/libexec/activate* "$root"/libexec/*.bat
sed -i "1s|^#!.*python.*|#!$root/bin/python -I|" $(grep -lI '^#!' "$root"/libexec/*)

# what no notebook asks for
rm -rf "$root"/share/man "$root"/share/jupyterhub/static "$root"/share/jupyter/kernels "$root/.lock"
rm -rf "$site"/babel/locale-data/[a-df-z]* "$site"/debugpy/_vendored/pydevd/pydevd_attach_to_process
find "$site" -type d -name tests -prune -exec rm -rf {} +
find "$site" -path '*/debugpy/*' \( -name '*.c' -o -name '*.pyx' -o -name '*.dll' \) -delete
rm -rf "$site"/jedi/third_party/django-stubs
