#!/bin/sh
# Makes a store of one base image, which builds then read without copying it. On Docker only.
#
#   /storage    the image as the Docker Engine saves it, unpacked: manifest.json and what it names
#   /base       where the store goes
set -eu
umask 022
cd /storage
mkdir tmp
export TMPDIR=/storage/tmp
works() {
    buildah --storage-driver "$1" --root /base --runroot /storage/run info > tmp/info 2>&1
}
driver=overlay
works overlay || driver=vfs
if ! works "$driver"; then
    cat tmp/info
    exit 70
fi
# Something half made by one who was killed.
buildah unshare find /base -mindepth 1 -delete
set -- --storage-driver "$driver" --root /base --runroot /storage/run
# Layers over this store are of no use over another of the same image.
date +%s.%N > /base/made
tar --create --exclude ./tmp --exclude ./run . |
    buildah "$@" pull --quiet docker-archive:/dev/stdin > /base/image
