#!/bin/sh
# Builds one image from a laid out bundle, in a pod or container, without any credential, and leaves
# it as an OCI layout for the step that pushes. Everything it is told comes from the environment:
#
#   KAOS_SOURCE        the bundle: Dockerfile beside KAOS_CONTEXT (a folder in it, or .)
#   KAOS_OUT           where the layout goes
#   KAOS_STORAGE       scratch space
#   KAOS_BASES         lines "name reference": what each base image was pinned to
#   KAOS_KEPT          where a step before has left bases that want a login, by digest
#   KAOS_STORES        folders with stores of base images, which are only read. Where this is set, if
#                      only to nothing, references in KAOS_BASES are such folders, and no registry
#                      is asked
#   KAOS_REGISTRIES    text of a registries.conf
#   KAOS_BUILD_ARGS    lines NAME=value: build arguments
#   KAOS_PIP           text of a pip.conf for every RUN
#   KAOS_CA            file with certificates to trust beside the system's
#   KAOS_CACHE         the owner's cache; KAOS_CACHE_LIMIT its largest size in MiB
#   KAOS_WHOLE         leave all layers
#   KAOS_HAVE          on Docker: lines with the digests of layers, in order, that the Engine has
#                      already lying over each other; what an image begins with of these is not left
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
works() { # works DRIVER ROOT
    buildah --storage-driver "$1" --root "$2" --runroot "$KAOS_STORAGE/run" info > info 2>&1
}
# Layers of the cache lie over those of the stores that they were made with.
kept=root
for store in ${KAOS_STORES:-}; do
    kept=$kept-$(cat "$store/made")
done
cached() {
    [ -n "${KAOS_CACHE:-}" ] && [ -w "$KAOS_CACHE" ] || return 1
    # Builds that run share the lock; whoever wipes must be alone.
    exec 9>> "$KAOS_CACHE/lock"
    used=$(du -sm "$KAOS_CACHE" 2> /dev/null | cut -f 1)
    if [ "${used:-0}" -gt "$KAOS_CACHE_LIMIT" ] && flock --exclusive --nonblock 9; then
        echo "The cache of builds holds $used MiB, more than $KAOS_CACHE_LIMIT: it begins anew."
        buildah unshare find "$KAOS_CACHE" -mindepth 1 ! -name lock -delete
    fi
    flock --shared 9
    works overlay "$KAOS_CACHE/$kept"
}
if cached; then
    root=$KAOS_CACHE/$kept
    # What RUN --mount=type=cache shows.
    mkdir -p "$KAOS_CACHE/mounts"
    ln -s "$KAOS_CACHE/mounts" "$TMPDIR/buildah-cache-$(id -u)"
    layers=true
elif [ -n "${KAOS_CACHE:-}" ]; then
    echo "The cache of builds cannot be used here; building without."
fi
driver=overlay
[ $layers = true ] || works overlay "$root" || driver=vfs
if [ $driver = vfs ] && ! works vfs "$root"; then
    # For whoever started it: the machine does not let builds work.
    cat info
    exit 70
fi
set -- --storage-driver "$driver" --root "$root" --runroot "$KAOS_STORAGE/run"
for store in ${KAOS_STORES:-}; do
    set -- "$@" --storage-opt "$driver.imagestore=$store"
done

# --- bases that were fetched by a step with a login ---

bases=$(
    printf '%s\n' "${KAOS_BASES:-}" | while read -r name reference; do
        kept="${KAOS_KEPT:-}/${reference##*:}"
        if [ -n "${KAOS_STORES:-}" ]; then
            # Engines have ids of their own for it.
            [ -z "$reference" ] || reference=$(cat "$reference/image")
        elif [ -n "$reference" ] && [ -e "$kept/manifest.json" ]; then
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
    [ -z "${KAOS_STORES+set}" ] || set -- "$@" --pull=never
    exec buildah "$@" --layers="$layers" --format oci --tag "$image" --iidfile iid \
        --file source/Dockerfile "source/$KAOS_CONTEXT"
}

limited() { # copy at most so many bytes, at once as they come, and drop the rest
    # Nodes keep some forty bytes more of every line, however short.
    stdbuf -o0 head -n $((KAOS_OUTPUT_LIMIT / 64)) | stdbuf -o0 head -c "$KAOS_OUTPUT_LIMIT"
    if [ "$(head -c 1 | wc -c)" != 0 ]; then
        printf '\nThe output has reached its limit; the build goes on.\n'
        cat > /dev/null
    fi
}

# In the output bases go by the names that the Dockerfile has, not by what they were pinned to.
printf '%s\n' "$bases" | while read -r name reference; do
    [ -n "$reference" ] || continue
    pattern=$(printf '%s\n' "$reference" | sed 's/[][\\.*^$|]/\\&/g')
    printf 's|\\(STEP [0-9/]*: FROM \\)%s|\\1%s|\n' "$pattern" "$name"
done > names.sed

mkfifo output
(
    limited | sed --unbuffered --file=names.sed
    : > drained
) < output &
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
# Layers of the image, in order, as "digest size". Each call of buildah costs half a second.
id=$(sed 's/^sha256://' iid)
for store in "$root" ${KAOS_STORES:-}; do
    [ ! -e "$store/$driver-images/$id/manifest" ] || cat "$store/$driver-images/$id/manifest"
done | sed 's/.*"layers"//' | tr '{' "$newline" |
    sed -n 's/.*"digest":"sha256:\([0-9a-f]*\)","size":\([0-9]*\).*/\1 \2/p' > layers

known() { # which of the layers are where the image goes
    if [ -n "${KAOS_STORES+set}" ]; then
        # The Engine takes a layer by what it lies on, so only a beginning counts.
        printf '%s\n' "${KAOS_HAVE:-}" | awk '
            FILENAME == "layers" { layer[++count] = $1; last[$1] = count; next }
            { for (i = 1; i <= NF && i <= count && $i == layer[i];) i++ }
            i - 1 > most { most = i - 1 }
            END {
                for (i = 1; i <= most; i++) if (last[layer[i]] <= most) print layer[i]
            }' layers -
        return
    fi
    printf '%s\n' "$bases" | while read -r _ reference; do
        [ -z "$reference" ] || buildah "$@" inspect --type image \
            --format '{{range .OCIv1.RootFS.DiffIDs}}{{println .}}{{end}}' "$reference" \
            2> /dev/null || :
    done | sed -n 's/^sha256://p'
}

# What pushes the image wants to know its C library; the Docker Engine is asked for it.
[ -n "${KAOS_STORES+set}" ] || buildah "$@" unshare sh -c '
    container=$(buildah "$@" from --pull=never '"$image"') && root=$(buildah "$@" mount "$container")
    set -- "$root"/lib/ld-musl-*
    [ -e "$1" ] && [ ! -e "$root/etc/debian_version" ] && echo musl || echo glibc
' sh "$@" > "$KAOS_OUT/libc"

# Of layers that are there already an empty file of the right size will do, which is not packed.
blobs=$KAOS_OUT/layout/blobs/sha256
mkdir -p "$blobs"
[ -n "${KAOS_WHOLE:-}" ] || known "$@" | sort -u > empty
: >> empty
while read -r digest; do
    size=$(sed -n "s/^$digest //p" layers | head -n 1)
    [ -z "$size" ] || truncate -s "$size" "$blobs/$digest"
done < empty
# shellcheck disable=SC2086
buildah "$@" push --quiet ${KAOS_STORES+${KAOS_COMPRESS:---compression-level 1}} \
    "$image" "oci:$KAOS_OUT/layout:kaos"
# To be read as a stream, in which they would be as large as they look.
[ -z "${KAOS_STORES+set}" ] || while read -r digest; do rm -f "$blobs/$digest"; done < empty
