#!/bin/sh
# Builds one image from a laid out bundle, in a pod, without any credential, and leaves it as an OCI
# layout for the step that pushes. Everything it is told comes from the environment:
#
#   KAOS_SOURCE        the bundle: Dockerfile beside KAOS_CONTEXT (a folder in it, or .)
#   KAOS_OUT           where the layout goes
#   KAOS_STORAGE       scratch space
#   KAOS_BASES         lines "name reference": what each base image was pinned to
#   KAOS_KEPT          where a step before has left bases that want a login, by digest
#   KAOS_REGISTRIES    text of a registries.conf
#   KAOS_BUILD_ARGS    lines NAME=value: build arguments
#   KAOS_PIP           text of a pip.conf for every RUN
#   KAOS_CA            file with certificates to trust beside the system's
#   KAOS_CACHE         the owner's cache; KAOS_CACHE_LIMIT its largest size in MiB
#   KAOS_OUTPUT_LIMIT  bytes of output; the rest is dropped
#   KAOS_PROCESSES     how many processes there may be
#   KAOS_FILE_LIMIT    MiB that a single file may have
set -eu
umask 022
work=$KAOS_STORAGE/work
image=localhost/kaos:built
newline='
'
mkdir -p "$work/tmp"
export TMPDIR="$work/tmp" BUILDAH_ISOLATION=chroot
cd "$work"

# Neither can be raised again by what runs below.
[ -z "${KAOS_PROCESSES:-}" ] || ulimit -p "$KAOS_PROCESSES"
[ -z "${KAOS_FILE_LIMIT:-}" ] || ulimit -f $((KAOS_FILE_LIMIT * 2048))

printf '%s\n' "${KAOS_REGISTRIES:-}" > registries.conf
export CONTAINERS_REGISTRIES_CONF="$work/registries.conf"
if [ -n "${KAOS_CA:-}" ]; then
    if [ ! -r "$KAOS_CA" ]; then
        echo "There is no config map with certificates (ca.crt) of the name that" \
            "KubernetesEngine.ca_configmap gives: the admin has to make it."
        exit 1
    fi
    cat /etc/ssl/certs/ca-certificates.crt "$KAOS_CA" > trusted.crt
    export SSL_CERT_FILE="$work/trusted.crt"
fi

# Seen by every RUN at a place where pip looks, and in the image an empty folder at most.
if [ -n "${KAOS_PIP:-}" ] || [ -e trusted.crt ]; then
    mkdir -p pip
    printf '%s\n' "${KAOS_PIP:-}" > pip/pip.conf
    [ ! -e trusted.crt ] || cp trusted.crt pip/ca.crt
fi

# --- where layers lie ---

root=$KAOS_STORAGE/root
layers=false
cached() {
    [ -n "${KAOS_CACHE:-}" ] && [ -w "$KAOS_CACHE" ] || return 1
    # Builds that run share the lock; whoever wipes must be alone.
    exec 9>> "$KAOS_CACHE/lock"
    used=$(du -sm "$KAOS_CACHE" 2> /dev/null | cut -f 1)
    if [ "${used:-0}" -gt "$KAOS_CACHE_LIMIT" ] && flock --exclusive --nonblock 9; then
        echo "The cache of builds holds $used MiB, more than $KAOS_CACHE_LIMIT: it begins anew."
        buildah unshare rm -rf "$KAOS_CACHE/root"
    fi
    flock --shared 9
    buildah --storage-driver overlay --root "$KAOS_CACHE/root" --runroot "$KAOS_STORAGE/run" \
        info > info 2>&1
}
if cached; then
    root=$KAOS_CACHE/root
    layers=true
elif [ -n "${KAOS_CACHE:-}" ]; then
    echo "The cache of builds cannot be used here; building without."
fi
driver=overlay
buildah --storage-driver overlay --root "$root" --runroot "$KAOS_STORAGE/run" info > info 2>&1 ||
    driver=vfs
set -- --storage-driver "$driver" --root "$root" --runroot "$KAOS_STORAGE/run"

# --- bases that were fetched by a step with a login ---

bases=$(
    printf '%s\n' "${KAOS_BASES:-}" | while read -r name reference; do
        kept="${KAOS_KEPT:-}/${reference##*:}"
        if [ -n "$reference" ] && [ -e "$kept/manifest.json" ]; then
            # From now on it goes by its id, so that no registry is asked for it.
            reference=$(buildah "$@" pull --quiet "dir:$kept") || reference=$kept
        fi
        printf '%s %s\n' "$name" "$reference"
    done
)

# --- the build ---

each() { # each FLAG LINES: the flag before every line, one word a line
    printf '%s\n' "$2" | while IFS= read -r line; do
        [ -z "$line" ] || printf '%s\n%s\n' "$1" "$line"
    done
}

build() {
    # What was laid out is read-only; in the image the user's files can be written to again.
    cp -R "$KAOS_SOURCE" source
    chmod -R u+w source
    options=$(
        each --build-arg "${KAOS_BUILD_ARGS:-}"
        printf '%s\n' "$bases" | while read -r name reference; do
            [ -z "$name" ] || printf '%s\n' --build-context "$name=docker-image://$reference"
        done
    )
    while IFS= read -r word; do
        [ -z "$word" ] || set -- "$@" "$word"
    done << END
$options
END
    [ ! -d pip ] || set -- "$@" --volume "$work/pip:/etc/xdg/pip:ro"
    exec buildah "$@" --layers="$layers" --format oci --tag "$image" \
        --file source/Dockerfile "source/$KAOS_CONTEXT"
}

limited() { # copy at most so many bytes, at once as they come, and drop the rest
    # Nodes keep some forty bytes more of every line, however short.
    stdbuf -o0 head -n $((KAOS_OUTPUT_LIMIT / 64)) | stdbuf -o0 head -c "$KAOS_OUTPUT_LIMIT"
    if [ "$(head -c 1 | wc -c)" != 0 ]; then
        printf '\nThe output has reached its limit; the build goes on.\n'
        cat > /dev/null
    fi
    : > drained
}

mkfifo output
limited < output &
before=$*
# The global options come before the command, the others after it.
# shellcheck disable=SC2086
set -- $before build
(build "$@") > output 2>&1 9>&- &
builder=$!
if [ "$layers" = true ]; then
    while kill -0 "$builder" 2> /dev/null && sleep 5; do
        used=$(du -sm "$KAOS_CACHE" 2> /dev/null | cut -f 1)
        if [ "${used:-0}" -gt $((2 * KAOS_CACHE_LIMIT)) ]; then
            echo "This build has filled the cache of builds to $used MiB: no space left on device."
            kill -KILL "$builder"
        fi
    done &
fi
code=0
wait "$builder" || code=$?
waited=0
while [ ! -e drained ] && [ $waited -lt 50 ]; do
    sleep 0.1
    waited=$((waited + 1))
done
# Whatever a RUN has left behind.
kill -KILL -1 2> /dev/null || :
[ "$code" = 0 ] || exit "$code"

# --- leave it for the next step ---

# shellcheck disable=SC2086
set -- $before
buildah "$@" unshare sh -c '
    container=$(buildah "$@" from --pull=never '"$image"') && root=$(buildah "$@" mount "$container")
    set -- "$root"/lib/ld-musl-*
    [ -e "$1" ] && [ ! -e "$root/etc/debian_version" ] && echo musl || echo glibc
' sh "$@" > "$KAOS_OUT/libc"

# The layers of the bases come from their registry: of those an empty file of the right size will
# do, which is then not packed.
mkdir -p "$KAOS_OUT/layout/blobs/sha256"
tr '{' "$newline" < "$root/$driver-layers/layers.json" |
    sed -n 's/.*"diff-digest":"sha256:\([0-9a-f]*\)","diff-size":\([0-9]*\).*/\1 \2/p' > sizes
printf '%s\n' "$bases" | while read -r _ reference; do
    [ -z "$reference" ] || buildah "$@" inspect --type image \
        --format '{{range .OCIv1.RootFS.DiffIDs}}{{println .}}{{end}}' "$reference" 2> /dev/null || :
done | sed -n 's/^sha256://p' | while read -r digest; do
    size=$(sed -n "s/^$digest //p" sizes | head -n 1)
    [ -z "$size" ] || truncate -s "$size" "$KAOS_OUT/layout/blobs/sha256/$digest"
done
buildah "$@" push --quiet "$image" "oci:$KAOS_OUT/layout:kaos"
