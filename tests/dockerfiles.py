"""Dockerfiles for builders to read: valid ones of every kind, and some that are none.

The bases ``kd-…`` say in a label which they are; ``ARCHITECTURE`` is put in for the machine's own.
"""

import platform

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
PLATFORM = f"linux/{ARCHITECTURE}"
BASES = ("kd-one:1", "kd-two:1", f"kd-{ARCHITECTURE}:1", "kd-linux:1", "kd-1:1", "kd:1", "kd-x:1")

_PLAIN = r"""
FROM kd-one:1
=====
from kd-one:1
label A=b
=====
From kd-one:1 As Build
FROM build
=====
FROM kd-one:1 AS a
FROM kd-two:1 AS b
FROM a
=====
FROM kd-one:1 AS a
FROM a AS b
FROM b AS c
FROM c
=====
FROM kd-one:1 AS a
FROM kd-two:1
COPY --from=a /base /other
=====
FROM kd-one:1
FROM kd-two:1
COPY --from=0 /base /other
=====
FROM kd-one:1
COPY --from=kd-two:1 /base /other
=====
FROM kd-one:1
COPY --from=kd-nowhere:1 /base /other
=====
FROM kd-one:1 AS kd-two
FROM kd-two:1
=====
FROM kd-one:1 AS UPPER
FROM upper
=====
FROM scratch
COPY file /
=====
FROM scratch AS a
COPY file /
FROM a
=====
ARG A=1 B=kd-two:1
FROM $B
=====
ARG A=kd-one:1 B=$A
FROM ${B}
=====
ARG B=kd-two:1
ARG A=${B}
FROM $A
=====
ARG V
FROM kd${V:+-$V}:1
=====
ARG V=one
FROM kd${V:+-$V}:1
=====
FROM kd-${V:-two}:1
=====
FROM kd-${V-two}:1
=====
ARG V=
FROM kd-${V:-two}:1
=====
ARG V=
FROM kd${V-two}:1
=====
ARG V=one
FROM kd-${V:-two}:1
=====
ARG V=one
FROM kd-${V+two}:1
=====
ARG W=two
FROM kd-${V:-$W}:1
=====
FROM kd-${V:-${W:-one}}:1
=====
ARG V=kd-one
FROM ${V?needed}:1
=====
FROM kd-${V:?needed}:1
=====
FROM kd-${V?needed}:1
=====
ARG V=kd-one:1@
FROM ${V%@}
=====
ARG V=x/kd-one:1
FROM ${V#x/}
=====
ARG V=x/y/kd-one:1
FROM ${V##*/}
=====
ARG V=kd-one:1-a-b
FROM ${V%%-a*}
=====
ARG V=kd_one
FROM ${V/_/-}:1
=====
ARG V=kd/one
FROM ${V//\//-}:1
=====
ARG V="kd-one:1"
FROM $V
=====
ARG V='kd-one:1'
FROM ${V}
=====
ARG V='$X'kd-one:1
FROM $V
=====
ARG "V=kd-one:1"
FROM $V
=====
ARG V=kd\-one:1
FROM $V
=====
FROM "kd-one:1"
=====
FROM 'kd-one:1'
=====
FROM kd-\
one:1
=====
FROM kd-$TARGETARCH:1
=====
FROM kd-${TARGETARCH}:1
=====
FROM kd-${TARGETOS}:1
=====
FROM kd-$BUILDARCH:1
=====
FROM kd${TARGETVARIANT}:1
=====
FROM --platform=$BUILDPLATFORM kd-one:1
=====
FROM --platform=${TARGETPLATFORM} kd-one:1 AS x
FROM x
=====
FROM --platform=linux/ARCHITECTURE kd-one:1
=====
ARG BUILDPLATFORM=linux/ARCHITECTURE
FROM --platform=$BUILDPLATFORM kd-one:1
=====
FROM --platform=$NOTHING kd-one:1
=====
ARG TARGETARCH
FROM kd-${TARGETARCH:-one}:1
=====
ARG TARGETARCH=one
FROM kd-$TARGETARCH:1
=====
FROM kd-$HTTP_PROXY:1
=====
FROM kd$UNSET:1
=====
FROM $UNSET
=====
FROM kd-one:$UNSET
=====
ARG kd
FROM $kd-one:1
=====
FROM kd-one:1
COPY <<EOF /made
FROM kd-two:1
from pathlib import Path
EOF
=====
FROM kd-one:1
COPY <<"EOF" <<-'OTHER' /made/
FROM kd-two:1
EOF
	FROM scratch
	OTHER
LABEL A=b
=====
FROM kd-one:1
COPY <<EOF /made
FROM kd-two:1
=====
FROM kd-one:1
COPY <<a <<b /made/
b
a
FROM x
b
=====
# escape=`
FROM kd-`
one:1
COPY file `
  /made
=====
# escape=`
FROM kd-one:1
COPY file C:\
=====
# escape=x
FROM kd-one:1
=====
# a comment
# escape=`
FROM kd-one:1
LABEL A=b \
  C=d
=====
#escape=\
FROM kd-one:1
=====
# escape=`
# escape=\
FROM kd-one:1
=====
# check=skip=all
FROM kd-one:1
=====
FROM kd-one:1
LABEL A=b \
  # FROM kd-two:1
  C=d

# FROM kd-two:1
=====
FROM kd-one:1
LABEL A=b \

  C=d \
FROM=kd-two:1
=====
   FROM    kd-one:1
	LABEL	A=b
=====
FROM	kd-one:1	AS	x
FROM x
=====
FROM kd-one:1 \
  AS x
FROM kd-two:1 \
  # and
  AS y
FROM x
=====
FROM kd-one:1
LABEL A="FROM \
kd-two:1"
=====
FROM kd-one:1
ENTRYPOINT ["a", "b"]
CMD ["FROM", "x"]
=====
FROM kd-one:1
CMD [1]
=====
FROM kd-one:1
CMD ["a", 'b']
=====
FROM kd-one:1
ONBUILD COPY file /
ONBUILD RUN x
=====
FROM kd-one:1
MAINTAINER somebody <a@example.org>
=====
FROM kd-one:1
HEALTHCHECK --interval=5s CMD x
HEALTHCHECK NONE
SHELL ["/bin/sh", "-c"]
STOPSIGNAL SIGTERM
VOLUME /data
EXPOSE 80/tcp
USER 1000
WORKDIR /x
=====
FROM kd-one:1
COPY --chown=1:1 ["file", "/with space"]
ADD file /added
=====
FROM kd-one:1
COPY --link --chmod=644 file /made
=====
FROM kd-one:1
ENV A=b FROM=x
ENV C d e f
ARG FROM=kd-two:1
LABEL A=$FROM
=====
LABEL A=b
FROM kd-one:1
=====
FROM
=====
FROM kd-one:1 AS
=====
FROM kd-one:1 as x y
=====
FROM kd-one:1 x y
=====
FROM kd-one:1 AS 1x
FROM 1x
=====
FROM kd-one:1 AS x.y-z_1
FROM x.y-z_1
=====
FROM kd-one:1
FETCH x
=====
FROM kd-one:1
ENV A=b C
=====
FROM kd-nowhere:1 AS unused
FROM kd-one:1
=====
FROM kd-one:1 AS used
FROM kd-nowhere:1 AS unused
COPY --from=used /base /x
FROM kd-two:1
COPY --from=used /base /x
=====
FROM kd-one:1 AS last
ARG V=kd-two:1
FROM $V
=====
FROM KD-ONE:1
=====
ARG A = b
FROM kd-one:1
=====
ARG A=kd-one:1
ARG A
FROM $A
=====
ARG A=kd-one:1
ARG A=kd-two:1
FROM $A
=====
FROM kd-two:1 AS one
FROM kd-one:1
COPY --from=ONE /base /x
"""

DOCKERFILES = [
    *_PLAIN.replace("ARCHITECTURE", ARCHITECTURE).strip("\n").split("\n=====\n"),
    "\ufeffFROM kd-one:1\n",
    "\ufeffARG V=kd-two:1\nFROM $V\n",
    "\ufeff# escape=`\nFROM kd-`\ntwo:1\n",
    "FROM kd-one:1\r\nLABEL A=b \\\r\n  C=d\r\nLABEL E=f\r\n",
    "ARG V=kd-two:1\r\nFROM $V\r\n",
    "FROM kd-one:1\r\nCOPY <<EOF /made\r\nFROM kd-two:1\r\nEOF\r\nLABEL A=b\r\n",
    "FROM kd-one:1 AS x\\\n\nFROM x",
    "\n\n\nFROM kd-one:1",
    "",
    "\n",
    "# nothing\n",
    "FROM kd-one:1 # no comment\n",
]
