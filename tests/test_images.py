"""From a bundle to its image's key; and from a failed build's log to the line that is wrong."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings, strategies as st

from kaos_hub.errors import Unsupported
from kaos_hub.service.builds.analysis import (
    Plan,
    analyse,
    explain_failure,
    final_base,
    image_name,
    local_key,
    refusals,
    short_key,
    warnings,
    why_rebuilt,
)

FILES = {
    "Dockerfile": "d0",
    "README.md": "r0",
    "model/requirements.txt": "q0",
    "model/train.py": "t0",
    "model/lib/a.py": "a0",
    "model/lib/b.txt": "b0",
}
GOOD = """
    FROM python:3.13-slim
    WORKDIR /opt/program
    COPY requirements.txt .
    RUN pip install -r requirements.txt
    COPY . /opt/program
    CMD ["python"]
"""
PLATFORM = "linux/amd64"


def plan(text: str, files: dict[str, str] | None = None) -> Plan:
    return analyse(dedent(text).lstrip("\n"), FILES if files is None else files)


def key(text: str, files: dict[str, str] | None = None, resolved: str = "sha256:1") -> str:
    found = plan(text, files)
    return found.key(dict.fromkeys(found.bases, resolved), PLATFORM)[0]


def changed(**digests: str) -> dict[str, str]:
    """FILES with other contents, under keywords like ``model__train_py``."""
    return FILES | {k.replace("__", "/").replace("_", "."): d for k, d in digests.items()}


# --- what a build depends on ----------------------------------------------------------------------


def test_a_good_dockerfile_builds_only_for_its_requirements() -> None:
    found = plan(GOOD)
    assert found.context == "model"
    assert found.bases == ("python:3.13-slim",)
    assert found.environment == {"model/requirements.txt": "q0"}
    assert set(found.code) == {"model/train.py", "model/lib/a.py", "model/lib/b.txt"}
    assert found.code_overlay == "/opt/program"
    assert found.advice == ()
    assert key(GOOD) == key(GOOD, changed(model__train_py="t1", README_md="r1"))
    assert key(GOOD) != key(GOOD, changed(model__requirements_txt="q1"))
    assert key(GOOD) != key(GOOD, resolved="sha256:2")
    assert key(GOOD) != key(GOOD + "    ENV A=1\n")


def test_the_environment_key_leaves_the_code_out() -> None:
    text = "FROM x\nCOPY a /a\nRUN make\nCOPY b /b\n"
    files = {"model/a": "1", "model/b": "1"}
    one, two = plan(text, files), plan(text, files | {"model/b": "2"})
    bases = {"x": "sha256:1"}
    assert one.environment_key(bases, PLATFORM) == two.environment_key(bases, PLATFORM)
    assert one.key(bases, PLATFORM) != two.key(bases, PLATFORM)


@pytest.mark.parametrize(
    ("lines", "needed"),
    [
        ("COPY . .", "all"),
        ("COPY ./ /x/", "all"),
        ("ADD requirements.txt /x", {"requirements.txt"}),
        ("COPY lib /x", {"lib/a.py", "lib/b.txt"}),
        ("COPY lib/*.py /x/", {"lib/a.py"}),
        ("COPY req*.txt train.p[xy] /x/", {"requirements.txt", "train.py"}),
        ("COPY l?b /x/", {"lib/a.py", "lib/b.txt"}),
        ("COPY **/a.py /x/", "all"),
        ('COPY ["lib/a.py", "/x/"]', {"lib/a.py"}),
        ("COPY --chown=1000:1000 lib/a.py /x/", {"lib/a.py"}),
        ("COPY ../lib/a.py /x/", {"lib/a.py"}),
        ("ARG D=lib\nCOPY $D /x/", "all"),
        ("ADD https://example.org/x.tar /x/", set()),
        ("RUN --mount=type=bind,target=/c cat /c/train.py", "all"),
        ("RUN --mount=target=/c cat /c/train.py", "all"),
        ("RUN --mount=type=cache,target=/root/.cache true", set()),
        ("COPY <<EOF /x\nhello\nEOF", "all"),
        ("COPY requirements.txt \\\n  train.py \\\n  /x/", {"requirements.txt", "train.py"}),
    ],
)
def test_what_is_copied_before_a_run_is_environment(lines: str, needed: str | set[str]) -> None:
    found = plan(f"FROM x\n{lines}\nRUN make\n")
    inside = {p.removeprefix("model/") for p in FILES if p.startswith("model/")}
    wanted = inside if needed == "all" else needed
    assert {p.removeprefix("model/") for p in found.environment} == wanted


def test_copying_from_another_stage_or_image_needs_no_file() -> None:
    found = plan(
        """
        FROM golang:1.22 AS build
        COPY lib /src
        RUN go build
        FROM debian:trixie-slim
        COPY --from=build /src/out /bin/out
        COPY --from=0 /etc/x /etc/x
        COPY --from=ghcr.io/astral-sh/uv:0.9 /uv /bin/uv
        RUN true
        COPY train.py /
        """
    )
    assert found.bases == ("golang:1.22", "debian:trixie-slim", "ghcr.io/astral-sh/uv:0.9")
    assert set(found.environment) == {"model/lib/a.py", "model/lib/b.txt"}
    assert set(found.code) == {"model/train.py"}


def test_all_code_before_a_run_is_environment_with_advice() -> None:
    text = "# first\nFROM python:3.13\nCOPY . /opt/program\nRUN pip install -r requirements.txt\n"
    found = plan(text)
    assert set(found.environment) == {p for p in FILES if p.startswith("model/")}
    assert found.code_overlay is None
    assert found.advice == (
        "line 3 copies all code before line 4 installs; move the requirements first, or declare"
        " `# kaos: environment=requirements.txt` in the first line",
    )


def test_a_declaration_makes_the_rest_code() -> None:
    text = (
        "# kaos: environment=requirements.txt\nFROM python:3.13\nCOPY . /srv/app\n"
        "RUN pip install -r /srv/app/requirements.txt\n"
    )
    found = plan(text)
    assert set(found.environment) == {"model/requirements.txt"}
    assert (found.code_overlay, found.advice) == ("/srv/app", ())
    assert key(text) == key(text, changed(model__train_py="t1"))
    with pytest.raises(Unsupported, match=r"Dockerfile:1: environment=nope\.txt"):
        plan("# kaos: environment=nope.txt\nFROM x\nRUN true\n")
    nowhere = plan("# kaos: environment=requirements.txt\nFROM x\nCOPY train.py /\nRUN true\n")
    assert nowhere.code_overlay is None
    assert "line 1 declares" in nowhere.advice[0]


def test_the_context_may_be_the_whole_bundle() -> None:
    found = plan("# kaos: context=.\nFROM x\nCOPY README.md /\nRUN true\nCOPY model /m\n")
    assert found.context == "."
    assert set(found.environment) == {"README.md"}
    assert "model/train.py" in found.code
    with pytest.raises(Unsupported, match="Dockerfile:1: the build context is model or"):
        plan("# kaos: context=../x\nFROM x\n")


@pytest.mark.parametrize(
    ("text", "overlay"),
    [
        ("FROM x\nRUN true\nCOPY . /srv/app\n", "/srv/app"),
        ("FROM x\nRUN true\nWORKDIR /srv\nWORKDIR app\nCOPY . .\n", "/srv/app"),
        ("FROM x\nCOPY . /a\n", "/a"),
        ("FROM x\nRUN true\n", "/opt/program"),
        (
            "FROM x\nWORKDIR /opt/program\nCOPY requirements.txt .\nRUN pip install x\n",
            "/opt/program",
        ),
        ("FROM scratch\nCOPY . app\n", "/app"),
        ("FROM x\nRUN true\nCOPY . .\n", None),  # the base image's directory is not known
        ("FROM x\nRUN true\nCOPY . /\n", None),
        ("FROM x\nRUN true\nCOPY . $HOME/app\n", None),
        ("FROM x\nRUN true\nCOPY lib /srv/app\n", None),
        ("FROM x\nRUN true\nCOPY . /a\nCOPY lib /b\n", None),
        ("FROM x\nWORKDIR /a\nRUN python -m venv .venv\nCOPY . .\n", None),
        ("FROM x\nRUN mkdir /a && touch /a/keep\nCOPY . /a\n", None),
        ("FROM x\nCOPY lib/a.py /a/renamed.py\nRUN true\nCOPY . /a\n", None),
        ("FROM x\nRUN touch /opt/program/made\n", None),
        ("FROM x\nRUN make\nCOPY . /a\n", None),  # in an unknown directory
        ("FROM x\nWORKDIR /b\nRUN make\nCOPY . /a\n", "/a"),
        ("FROM x\nWORKDIR /a\nRUN pip install -t lib six\nCOPY . .\n", None),
        ("FROM x\nCOPY lib /a\nRUN true\nCOPY . /a\n", None),
        ("FROM x\nCOPY lib /a/lib\nRUN true\nCOPY . /a\n", "/a"),
        ("FROM x\nCOPY lib/*.py /a/lib/\nRUN true\nCOPY . /a\n", "/a"),
        ("FROM x\nCOPY lib/*.py /a/\nRUN true\nCOPY . /a\n", None),
        ("FROM x\nCOPY req*.txt train.py /a/\nRUN true\nCOPY . /a\n", "/a"),
        (
            "FROM x\nWORKDIR /a\nCOPY requirements.txt .\nRUN apt-get update && apt-get install"
            " -y gcc && rm -rf /var/lib/apt/lists/*\nRUN pip install --no-cache-dir -r"
            " requirements.txt\nCOPY . .\n",
            "/a",
        ),
        ("FROM y AS b\nFROM x\nCOPY --from=b /o /a/o\nRUN true\nCOPY . /a\n", None),
    ],
)
def test_code_is_mounted_only_where_a_build_would_show_the_same(
    text: str, overlay: str | None
) -> None:
    found = plan(text)
    assert found.code_overlay == overlay
    # what is not mounted must be built in, so that old code is never shown
    if overlay is None and "model/train.py" in {**found.environment, **found.code}:
        assert key(text) != key(text, changed(model__train_py="t1"))


def test_a_dockerignore_is_part_of_the_environment_and_forbids_mounting() -> None:
    files = FILES | {"model/.dockerignore": "i0"}
    assert plan(GOOD, files).code_overlay is None
    assert plan(GOOD, files).environment["model/.dockerignore"] == "i0"


def test_an_onbuild_base_sees_everything() -> None:
    found = plan("FROM python:3-onbuild\nRUN true\n")
    assert set(found.environment) == {p for p in FILES if p.startswith("model/")}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["COPY . /a", "COPY lib /b", "COPY train.py /c", "RUN make", "RUN pip install x",
             "WORKDIR /a", "COPY requirements.txt .", "FROM y", "ADD lib/*.py /d/", "ENV A=1"]
        ),
        max_size=8,
    ),
    st.sampled_from([p for p in FILES if p.startswith("model/")]),
)  # fmt: skip
def test_no_copied_file_changes_unseen(lines: list[str], path: str) -> None:
    """Whatever a file's change can alter is in the key, or mounted over the image."""
    text = "\n".join(["FROM x", *lines])
    before, after = plan(text), plan(text, FILES | {path: "other"})
    bases = {"x": "1", "y": "2"}
    copied = path in {**before.environment, **before.code}
    same = before.key(bases, PLATFORM)[0] == after.key(bases, PLATFORM)[0]
    assert same == (not copied or (path in before.code and before.code_overlay is not None))


# --- bases, names, reasons ------------------------------------------------------------------------


def test_arguments_in_from() -> None:
    assert plan("ARG V=3.13\nFROM python:${V}-slim\n").bases == ("python:3.13-slim",)
    assert plan("FROM python:${V:-3.12}\n").bases == ("python:3.12",)
    with pytest.raises(Unsupported, match=r"Dockerfile:2: FROM needs the argument V.*ARG V="):
        plan("ARG V\nFROM python:$V\n")
    with pytest.raises(Unsupported, match="Dockerfile:1: there is no FROM"):
        plan("RUN true\n")


def test_the_final_base() -> None:
    assert final_base("FROM a\nFROM --platform=linux/amd64 b AS c\nFROM c AS d\nFROM d\n") == "b"
    assert final_base("FROM scratch\n") == ""


def test_image_names_are_private_to_an_owner() -> None:
    assert image_name("user:ada", "k") == image_name("user:ada", "k")
    assert image_name("user:ada", "k") != image_name("group:ada", "k")
    assert image_name("user:Ä b/c", "k").endswith(":k")


def test_local_keys() -> None:
    first, inputs = local_key("six\n", "cpython-3.11.7", PLATFORM)
    assert first == local_key(b"six\n", "cpython-3.11.7", PLATFORM)[0] == short_key(inputs)
    others = [
        local_key("six==1\n", "cpython-3.11.7", PLATFORM)[0],
        local_key("six\n", "cpython-3.13.1", PLATFORM)[0],
        local_key("six\n", "cpython-3.11.7", "linux/arm64")[0],
        local_key(None, "cpython-3.11.7", PLATFORM)[0],
    ]
    assert len({first, *others}) == 5


@pytest.mark.parametrize(
    ("text", "leads_on"),
    [
        ("six\nhumanize==4.1  # see lib/b.txt\n", False),
        ("six\n-r more.txt\n", True),
        ("--constraint=c.txt\nsix\n", True),
        ("-e .\n", True),
        (".\n", True),
        ("./lib\n", True),
        ("lib @ file:///opt/program/lib\n", True),
        ("wheels/x-1-py3-none-any.whl\n", True),
    ],
)
def test_requirements_that_lead_to_other_files(text: str, leads_on: bool) -> None:
    one = local_key(text, "3.11", PLATFORM, FILES)[0]
    two = local_key(text, "3.11", PLATFORM, changed(model__lib__a_py="a1"))[0]
    assert (one != two) == leads_on


def test_why_rebuilt_names_what_changed() -> None:
    def inputs(text: str = GOOD, resolved: str = "sha256:1", **digests: str) -> dict[str, object]:
        made = plan(text, changed(**digests)).key({"python:3.13-slim": resolved}, PLATFORM)[1]
        return dict(json.loads(json.dumps(made)))

    assert why_rebuilt(inputs(), inputs()) == ""
    assert (
        why_rebuilt(inputs(), inputs(model__requirements_txt="q1"))
        == "model/requirements.txt changed"
    )
    assert why_rebuilt(inputs(), inputs(text=GOOD + "    ENV A=1\n")) == "Dockerfile changed"
    assert why_rebuilt(inputs(), inputs(resolved="2")) == "python:3.13-slim is another image now"
    local, none = local_key("six", "3.11", PLATFORM)[1], local_key(None, "3.12", PLATFORM)[1]
    assert why_rebuilt(local, none) == (
        "model/requirements.txt is gone, python is another interpreter now"
    )
    many = "FROM x\nCOPY . /\nRUN true\n"
    old, new = plan(many, {f"model/{n}": "1" for n in range(5)}), plan(many, {})
    assert why_rebuilt(old.key({"x": ""}, "")[1], new.key({"x": ""}, "")[1]).endswith("and 2 more")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("RUN --mount=type=cache,target=/c pip install x", "RUN --mount"),
        ("COPY --chmod=755 a /a", "COPY --chmod"),
        ("COPY --link a /a", "COPY --link"),
        ("ADD --checksum=sha256:1 https://example.org/x /x", "ADD --checksum"),
        ("RUN <<EOF\necho hello\nEOF", "a heredoc"),
        ("COPY <<-'EOF' /x\nhello\nEOF", "a heredoc"),
    ],
)
def test_what_the_classic_builder_cannot_do_is_refused_by_line(line: str, what: str) -> None:
    text = f"FROM x\n\nENV A=1\n{line}\n"
    (refusal,) = refusals(text, classic=True)
    assert refusal.startswith(f"Dockerfile:4: {what}")
    assert refusals(text, classic=False) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "FROM --platform=$BUILDPLATFORM x\n",
            "Dockerfile:1: --platform needs the argument BUILDP",
        ),
        ("\nFROM x-$TARGETARCH\n", "Dockerfile:2: FROM needs the argument TARGETARCH"),
    ],
)
def test_what_only_buildkit_knows_is_refused_for_the_classic_builder(text: str, said: str) -> None:
    assert refusals(text, classic=False) == []
    (refused,) = refusals(text, classic=True)
    assert refused.startswith(said)
    assert "docker-buildx" in refused


@pytest.mark.parametrize(
    "text",
    [
        "ARG V=" + "a" * 4000 + "\nFROM x${V#*a*a*a*a*a*b}\n",
        "ARG A=" + "a" * 100 + "\n" + "ARG A=$A$A\n" * 40 + "FROM $A\n",
        "FROM " + "$A" * 100_000 + "\n",
        "FROM " + "${A:-" * 50_000 + "\n",
    ],
    ids=["wildcards", "doubling", "long", "deep"],
)
def test_no_substitution_takes_long(text: str) -> None:
    began = time.process_time()
    (refused,) = refusals(text, classic=False)
    assert refused.startswith("Dockerfile:")
    assert time.process_time() - began < 5


def test_what_the_classic_builder_can_do_is_not_refused() -> None:
    text = 'FROM x AS y\nCOPY --from=y --chown=1 a /a\nRUN cat <<< hi; echo $((1<<2))\nCMD ["1"]\n'
    assert refusals(text) == []
    assert refusals("RUN true\n") == [
        "Dockerfile:1: there is no FROM line; begin with FROM python:3.13-slim"
    ]
    assert warnings("# syntax=docker/dockerfile:1\nFROM x\n") == [
        "Dockerfile:1: the builder here ignores `# syntax=`"
    ]


# --- failures, from real logs (Docker Engine 20.10 classic builder, pip 24, uv 0.13) -----------

DOCKERFILE = "FROM python:3.11-slim\nCOPY requirements.txt .\nRUN pip install -r requirements.txt\n"
STEP = "Step 3/4 : RUN pip install -r requirements.txt\n ---> Running in fddfc38f6ee1\n"
END = (
    "\x1b[0mRemoving intermediate container fddfc38f6ee1\n"
    "The command '/bin/sh -c pip install -r requirements.txt' returned a non-zero code: 1\n"
)


def reader(requirements: str = "", dockerfile: str | None = None) -> Callable[[str], str | None]:
    files = {"model/requirements.txt": requirements or None, "Dockerfile": dockerfile}
    return lambda path: files.get(path)


PIP = [
    (
        "six\nhumanize==999.9\n",
        "\x1b[91mERROR: Could not find a version that satisfies the requirement humanize==999.9"
        " (from versions: 0.1, 0.2, 4.9.0, 4.10.0, 4.11.0, 4.12.0)\n"
        "\x1b[0m\x1b[91mERROR: No matching distribution found for humanize==999.9\n",
        "model/requirements.txt:2: no version humanize==999.9; there is 4.10.0, 4.11.0, 4.12.0",
    ),
    (
        "six\n\n# data\nno-such-package-kaos-xyz>=1\n",
        "\x1b[91mERROR: Could not find a version that satisfies the requirement"
        " no-such-package-kaos-xyz>=1 (from versions: none)\n"
        "\x1b[0m\x1b[91mERROR: No matching distribution found for no-such-package-kaos-xyz>=1\n",
        "model/requirements.txt:4: no package no-such-package-kaos-xyz in the index (or the index"
        " cannot be reached)",
    ),
    (
        "six\nhumanize=4.0\n",
        "\x1b[91mERROR: Invalid requirement: 'humanize=4.0' (from line 2 of requirements.txt)\n"
        "Hint: = is not a valid operator. Did you mean == ?\n",
        "model/requirements.txt:2: 'humanize=4.0' is no requirement (= is not a valid operator. Did"
        " you mean == ?)",
    ),
    (
        "urllib3==2.2.1\nrequests==2.20.0\n",
        "\x1b[91mERROR: Cannot install -r requirements.txt (line 2) and urllib3==2.2.1 because"
        " these package versions have conflicting dependencies.\n\x1b[0m\n"
        "The conflict is caused by:\n    The user requested urllib3==2.2.1\n"
        "    requests 2.20.0 depends on urllib3<1.25 and >=1.21.1\n\n"
        "To fix this you could try to:\n1. loosen the range of package versions\n",
        "model/requirements.txt:1: the requirements contradict each other: The user requested"
        " urllib3==2.2.1; requests 2.20.0 depends on urllib3<1.25 and >=1.21.1",
    ),
    (
        "six\nsklearn\n",
        "Collecting six\n  Downloading six-1.17.0-py2.py3-none-any.whl (11 kB)\n"
        "Collecting sklearn\n"
        "  Downloading sklearn-0.0.post12.tar.gz (2.6 kB)\n"
        "  Preparing metadata (setup.py): finished with status 'error'\n"
        "\x1b[91m  error: subprocess-exited-with-error\n  \n"
        "  × python setup.py egg_info did not run successfully.\n  │ exit code: 1\n"
        "  ╰─> [15 lines of output]\n"
        "      The 'sklearn' PyPI package is deprecated, use 'scikit-learn'\n"
        "      [end of output]\n  \n"
        "\x1b[0m\x1b[91merror: metadata-generation-failed\n",
        "model/requirements.txt:2: sklearn cannot be built: The 'sklearn' PyPI package is"
        " deprecated, use 'scikit-learn'",
    ),
]


@pytest.mark.parametrize(("requirements", "log", "wanted"), PIP)
@pytest.mark.parametrize("stamp", ["", "2026-11-21T00:20:01.123456Z "])
def test_pip_failures_in_a_docker_build(
    requirements: str, log: str, wanted: str, stamp: str
) -> None:
    lines = [f"{stamp}{line}\n" for line in (STEP + log + END).splitlines()]
    assert explain_failure(lines, reader(requirements, DOCKERFILE)) == wanted


NO_SOLUTION = (
    "Using Python 3.11.7 environment at: venv\n"
    "error: No solution found when resolving dependencies\n"
)
UV = [
    (
        "six\nhumanize==999.9\n",
        NO_SOLUTION + "  cause: Because there is no version of humanize==999.9 and you require"
        " humanize==999.9, we can conclude that your requirements are unsatisfiable.\n",
        "model/requirements.txt:2: no version humanize==999.9",
    ),
    (
        "six\nhumanize>=999\n",
        NO_SOLUTION + "  cause: Because only humanize<=4.17.0 is available and you require"
        " humanize>=999, we can conclude that your requirements are unsatisfiable.\n",
        "model/requirements.txt:2: no version humanize>=999; there is humanize<=4.17.0",
    ),
    (
        "six\nhumanize>=4.5.1,<4.5.9\n",
        NO_SOLUTION + "  cause: Because only the following versions of humanize are available:\n"
        "             humanize<4.5.1\n             humanize>4.5.9\n"
        "         and you require humanize>=4.5.1,<4.5.9, we can conclude that your requirements"
        " are unsatisfiable.\n",
        "model/requirements.txt:2: no version humanize>=4.5.1,<4.5.9; there is humanize<4.5.1"
        " humanize>4.5.9",
    ),
    (
        "no_such.package\n",
        NO_SOLUTION + "  cause: Because no-such-package was not found in the package registry and"
        " you require no-such-package, we can conclude that your requirements are unsatisfiable.\n",
        "model/requirements.txt:1: no package no-such-package in the index",
    ),
    (
        "numpy==2.5.0\n",
        NO_SOLUTION + "  cause: Because the current Python version (3.11.7) does not satisfy"
        " Python>=3.12 and numpy==2.5.0 depends on Python>=3.12, we can conclude that numpy==2.5.0"
        " cannot be used.\n         And because you require numpy==2.5.0, we can conclude that your"
        " requirements are unsatisfiable.\n",
        "model/requirements.txt:1: numpy==2.5.0 needs Python>=3.12, and this is Python 3.11.7",
    ),
    (
        "tensorflow==1.15\n",
        NO_SOLUTION + "  cause: Because tensorflow==1.15.0 has no wheels with a matching Python ABI"
        " tag (e.g., `cp311`) and you require tensorflow==1.15, we can conclude that your"
        " requirements are unsatisfiable.\n\nhint: You require CPython 3.11 (`cp311`), but we only"
        " found wheels for `tensorflow` (v1.15.0) with the following Python ABI tags: `cp27m`\n",
        "model/requirements.txt:1: tensorflow==1.15.0 has no wheels with a matching Python ABI tag"
        " (e.g., `cp311`)",
    ),
    (
        "urllib3==2.2.1\nrequests==2.20.0\n",
        NO_SOLUTION + "  cause: Because requests==2.20.0 depends on urllib3>=1.21.1,<1.25 and you"
        " require urllib3==2.2.1, we can conclude that your requirements and requests==2.20.0 are"
        " incompatible.\n         And because you require requests==2.20.0, we can conclude that"
        " your requirements are unsatisfiable.\n",
        "model/requirements.txt:1: the requirements contradict each other: requests==2.20.0 depends"
        " on urllib3>=1.21.1,<1.25 and you require urllib3==2.2.1",
    ),
    (
        "six\nhumanize=4.0\n",
        "error: Couldn't parse requirement in `model/requirements.txt` at position 4\n"
        '  cause: no such comparison operator "=", must be one of ~= == != <= >= < > ===\n'
        "         humanize=4.0\n                 ^^^^\n",
        "model/requirements.txt:2: 'humanize=4.0' is no requirement (no such comparison operator"
        ' "=", must be one of ~= == != <= >= < > ===)',
    ),
    (
        "six\nsklearn\n",
        "Using Python 3.11.7 environment at: venv\nerror: Failed to build `sklearn==0.0.post12`\n"
        "  cause: The build backend returned an error\n\n         [stderr]\n"
        "         The 'sklearn' PyPI package is deprecated, use 'scikit-learn'\n",
        "model/requirements.txt:2: sklearn==0.0.post12 cannot be built: The 'sklearn' PyPI package"
        " is deprecated, use 'scikit-learn'",
    ),
    (
        "six\n",
        "error: Request failed after 3 retries in 8.3s\n"
        "  cause: Failed to fetch: http://127.0.0.1:9/simple/six/\n"
        "  cause: error sending request for url (http://127.0.0.1:9/simple/six/)\n"
        "  cause: tcp connect error\n  cause: Connection refused (os error 111)\n",
        "model/requirements.txt:1: http://127.0.0.1:9/simple/six/ does not answer: Connection"
        " refused (os error 111)",
    ),
    ("six\n", "error: File not found: model/nosuch.txt\n", "there is no file model/nosuch.txt"),
    (
        "click\nsix==1.16.0 --hash=sha256:00\n",
        "error: Failed to download `six==1.16.0`\n  cause: Hash mismatch for `six==1.16.0`\n\n"
        "         Expected:\n           sha256:00\n\n         Computed:\n           sha256:8abb\n",
        "model/requirements.txt:2: the hash of six==1.16.0 is not the one that is asked for (the"
        " file in the index has sha256:8abb)",
    ),
    (
        "six==1.16.0 --hash=sha256:00\n",
        "error: Invalid hash digest length (expected 64 hexadecimal characters, found 2)\n",
        "model/requirements.txt:1: Invalid hash digest length (expected 64 hexadecimal characters,"
        " found 2)",
    ),
    (
        "six\nnumpy @ file:///croot/numpy_and_numpy_base_1/work\n",
        "error: Distribution not found at: file:///croot/numpy_and_numpy_base_1/work\n",
        "model/requirements.txt:2: /croot/numpy_and_numpy_base_1/work is a folder of the machine on"
        " which conda built the package; write the package's name and version instead (pip list"
        " --format=freeze does)",
    ),
    (
        "six\n-e ./pkg\n",
        "error: Distribution not found at: file:///somewhere/model/pkg\n",
        "model/requirements.txt:2: there is nothing at /somewhere/model/pkg",
    ),
    (
        "six\n# gr\N{REPLACEMENT CHARACTER}\n",
        "error: failed to decode file `requirements.txt`: stream did not contain valid UTF-8\n",
        "model/requirements.txt:2: is not UTF-8 (Latin-1?); save the file as UTF-8",
    ),
    (
        "six\n-r more.txt\n",
        "error: Error parsing included file in `requirements.txt` at position 4\n  cause: failed to"
        " read from file `/x/model/more.txt`: No such file or directory (os error 2)\n",
        "model/requirements.txt:2: more.txt cannot be read: No such file or directory",
    ),
    (
        "six\n--hash=x\n",
        "error: Unexpected '-', expected '-c', '-e', '-r' or the start of a requirement:"
        " requirements.txt:2:1\n",
        "model/requirements.txt:2: Unexpected '-', expected '-c', '-e', '-r' or the start of a"
        " requirement",
    ),
    (
        "six\n./nowhere.whl\n",
        "error: The wheel filename `nowhere.whl` is invalid: Must have a version\n",
        "model/requirements.txt:2: nowhere.whl is no name of a wheel: Must have a version",
    ),
    (
        "six\ngit+https://127.0.0.1:9/x.git\n",
        "   Updating https://127.0.0.1:9/x.git (HEAD)\nerror: Git operation failed\n"
        "  cause: failed to clone into: /x\n         --- stderr\n"
        "         fatal: unable to access 'https://127.0.0.1:9/x.git/': no server\n",
        "model/requirements.txt:2: git cannot fetch it: unable to access"
        " 'https://127.0.0.1:9/x.git/': no server",
    ),
]


def test_what_local_installs_is_never_blamed_on_the_dockerfile() -> None:
    """Its steps are not those of the Dockerfile, which it does not run."""
    steps = "Step 1/4 : Python\nStep 2/4 : virtual environment\nStep 3/4 : model/requirements.txt\n"
    told = {
        "error: Request failed after 3 retries in 8.6s\n  cause: Failed to fetch:"
        " http://127.0.0.1:9/simple/needed-by-six/\n  cause: dns error\n": "does not answer",
        "  cause: failed to copy file: No space left on device (os error 28)\n": "disk is full",
    }
    for log, wanted in told.items():
        found = explain_failure((steps + log).splitlines(), reader("six\n", DOCKERFILE))
        assert found.startswith("model/requirements.txt: ")
        assert wanted in found


@pytest.mark.parametrize(("requirements", "log", "wanted"), UV)
def test_uv_failures(requirements: str, log: str, wanted: str) -> None:
    assert explain_failure(log.splitlines(), reader(requirements)) == wanted


STEPS = [
    (
        "FROM python:3.11-slim\nWORKDIR /x\nCOPY . .\nENV A=1\nRUN nosuchcommand \\\n   --flag\n",
        "Step 5/5 : RUN nosuchcommand    --flag\n ---> Running in 5e163ea977a2\n"
        "\x1b[91m/bin/sh: 1: \x1b[0m\x1b[91mnosuchcommand: not found\n"
        "\x1b[0mRemoving intermediate container 5e163ea977a2\n"
        "The command '/bin/sh -c nosuchcommand    --flag' returned a non-zero code: 127\n",
        "Dockerfile:5: RUN nosuchcommand --flag returned 127: there is no command nosuchcommand",
    ),
    (
        "FROM python:3.11-slim\n# see below\nCOPY nosuch.txt /x/\nRUN true\n",
        "Step 2/3 : COPY nosuch.txt /x/\n"
        "COPY failed: file not found in build context or excluded by .dockerignore: stat"
        " nosuch.txt: file does not exist\n",
        "Dockerfile:3: there is no nosuch.txt in the build context (or .dockerignore hides it)",
    ),
    (
        "FROM python:3.11-slim\nCOPY model/ .\n",
        "STEP 1/2: FROM python:3.11-slim\nSTEP 2/2: COPY model/ .\n"
        'Error: building at STEP "COPY model/ .": checking on sources under "/source/model":'
        ' copier: stat: "/model": no such file or directory\n',
        "Dockerfile:2: there is no model in the build context, which is the folder model itself:"
        " leave out model/, or begin the Dockerfile with the line # kaos: context=.",
    ),
    (
        "FROM python:3.11-slim\nRUNN true\n",
        "Error response from daemon: dockerfile parse error line 2: unknown instruction: RUNN\n",
        "Dockerfile:2: unknown instruction: RUNN",
    ),
    (
        "# c\nFROM no-such-image-kaos:1\nRUN true\n",
        "Step 1/2 : FROM no-such-image-kaos:1\n"
        'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on'
        " 192.0.2.53:53: no such host\n",
        "Dockerfile:2: the registry of no-such-image-kaos:1 cannot be reached from here",
    ),
    (
        'FROM python:3.11-slim\nRUN sh -c "kill -9 \\$\\$"\n',
        'Step 2/2 : RUN sh -c "kill -9 \\$\\$"\n ---> Running in 71cf4d861917\n\x1b[91mKilled\n'
        "\x1b[0mRemoving intermediate container 71cf4d861917\n"
        "The command '/bin/sh -c sh -c \"kill -9 \\$\\$\"' returned a non-zero code: 137\n",
        'Dockerfile:2: RUN sh -c "kill -9 \\$\\$" was killed, most likely for want of memory',
    ),
    (
        "FROM python:3.11-slim\nRUN dd if=/dev/zero of=/dev/shm/x bs=1M count=100\n",
        "Step 2/2 : RUN dd if=/dev/zero of=/dev/shm/x bs=1M count=100\n"
        "\x1b[91mdd: error writing '/dev/shm/x': No space left on device\n"
        "\x1b[0mRemoving intermediate container 59f225dc2df4\nThe command '/bin/sh -c dd"
        " if=/dev/zero of=/dev/shm/x bs=1M count=100' returned a non-zero code: 1\n",
        "Dockerfile:2: the disk is full where images are built; tell the admin, or copy less in",
    ),
    (
        'FROM python:3.11-slim\nRUN python -c "import nosuchmodule"\n',
        'Step 2/2 : RUN python -c "import nosuchmodule"\n'
        "\x1b[91mTraceback (most recent call last):\n"
        '  File "<string>", line 1, in <module>\n'
        "ModuleNotFoundError: No module named 'nosuchmodule'\n"
        "The command '/bin/sh -c python -c \"import nosuchmodule\"' returned a non-zero code: 1\n",
        'Dockerfile:2: RUN python -c "import nosuchmodule" returned 1: ModuleNotFoundError: No'
        " module named 'nosuchmodule'",
    ),
    (
        "FROM python:3.11-slim\nRUN apt-get install -y nosuchpackage-kaos\n",
        "Step 2/2 : RUN apt-get install -y nosuchpackage-kaos\nReading package lists...\n"
        "\x1b[91mE: Unable to locate package nosuchpackage-kaos\n\x1b[0mThe command '/bin/sh -c"
        " apt-get install -y nosuchpackage-kaos' returned a non-zero code: 100\n",
        "Dockerfile:2: RUN apt-get install -y nosuchpackage-kaos returned 100: E: Unable to locate"
        " package nosuchpackage-kaos",
    ),
]


@pytest.mark.parametrize(("dockerfile", "log", "wanted"), STEPS)
def test_failed_steps(dockerfile: str, log: str, wanted: str) -> None:
    assert explain_failure(log.splitlines(), reader(dockerfile=dockerfile)) == wanted


def test_a_log_without_a_known_word_is_quoted() -> None:
    assert explain_failure([], reader()) == "the build failed"
    assert explain_failure(["odd things", ""], reader()).endswith("ends with: odd things")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=20))
def test_any_log_gets_one_line(lines: list[str]) -> None:
    assert "\n" not in explain_failure(lines, reader("six\n", DOCKERFILE))


# --- what the builder really copies ---------------------------------------------------------------

SOURCES = [
    "lib", "lib/", "lib/*.py", "l?b", "l[h-k]b", "req*.txt train.py", "lib/a.py", "*",
    "./lib/../lib",
]  # fmt: skip


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@pytest.mark.docker
@pytest.mark.skipif(not docker_answers(), reason="no Docker Engine answers")
def test_a_real_builder_copies_no_other_files(tmp_path: Path) -> None:
    """Each COPY of one image is compared, by content, with what is said about it."""
    inside = [p.removeprefix("model/") for p in FILES if p.startswith("model/")]
    for path in inside:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(f"{path}\n")
    lines = [f"COPY {source} /{number}/" for number, source in enumerate(SOURCES)]
    text = "\n".join(["FROM scratch", *lines, "CMD x"])
    built = subprocess.run(
        ["docker", "build", "-q", "-f", "-", str(tmp_path)],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DOCKER_BUILDKIT": "0"},
    )
    if built.returncode and "BuildKit" in built.stderr:
        pytest.skip("this Docker Engine has no classic builder")
    assert built.returncode == 0, built.stderr
    image = built.stdout.split()[-1]
    try:
        contents = image_contents(image)
    finally:
        subprocess.run(["docker", "rmi", "-f", image], capture_output=True, check=True)
    for number, source in enumerate(SOURCES):
        copied = {text for path, text in contents.items() if path.startswith(f"{number}/")}
        said = plan(f"FROM x\nCOPY {source} /x/\nRUN true\n").environment
        assert copied == {p.removeprefix("model/") for p in said}, source


def image_contents(image: str) -> dict[str, str]:
    """Path → content of each file of an image, without running it."""
    made = subprocess.run(["docker", "create", image], capture_output=True, text=True, check=True)
    container = made.stdout.strip()
    try:
        exported = subprocess.run(["docker", "export", container], capture_output=True, check=True)
    finally:
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(exported.stdout)) as tar:
        files = [(m.name, tar.extractfile(m)) for m in tar.getmembers() if m.isfile()]
        return {name: file.read().decode().strip() for name, file in files if file is not None}


# --- buildah 1.39, which counts the steps of each stage and repeats the instruction ---

BUILDAH = [
    (
        "ARG V=3.13\nFROM python:${V}-slim\nCOPY . .\n# hello\nRUN pip install \\\n   -r r.txt\n",
        "STEP 3/3: RUN pip install    -r r.txt\nsubprocess exited with status 1\n"
        'Error: building at STEP "RUN pip install    -r r.txt": exit status 1\n',
        "Dockerfile:5: RUN pip install -r r.txt returned 1",
    ),
    (
        "FROM a AS a\nRUN false\nFROM b\nRUN false\n",
        "[2/2] STEP 2/2: RUN false\nsubprocess exited with status 1\n"
        'Error: building at STEP "RUN false": exit status 1\n',
        "Dockerfile:4: RUN false returned 1",
    ),
    (
        "FROM python:3.13-slim\nCOPY --chmod=755 nothere /x\n",
        "STEP 2/2: COPY --chmod=755 nothere /x\n"
        'Error: building at STEP "COPY --chmod=755 nothere /x": checking on sources under "/src":'
        ' copier: stat: "/nothere": no such file or directory\n',
        "Dockerfile:2: there is no nothere in the build context (or .dockerignore hides it)",
    ),
    (
        "FROM python:3.13-slim\nFETCH x\n",
        "STEP 2/2: FETCH x\n"
        'Error: building at STEP "FETCH ": Build error: Unknown instruction: "FETCH" {Env: []}\n',
        "Dockerfile:2: there is no instruction FETCH",
    ),
    (
        "FROM docker.io/library/none:1\nRUN true\n",
        "STEP 1/2: FROM docker.io/library/none:1\nTrying to pull docker.io/library/none:1...\n"
        "Error: creating build container: initializing source docker://docker.io/library/none:1:"
        " reading manifest 1 in docker.io/library/none: manifest unknown\n",
        "Dockerfile:1: there is no image docker.io/library/none:1, or it may not be read",
    ),
    (
        "FROM python:3.13-slim\nRUN nosuchcmd x\n",
        "STEP 2/2: RUN nosuchcmd x\n/bin/sh: 1: nosuchcmd: not found\n"
        'Error: building at STEP "RUN nosuchcmd x": exit status 127\n',
        "Dockerfile:2: RUN nosuchcmd x returned 127: there is no command nosuchcmd",
    ),
]


@pytest.mark.parametrize(("dockerfile", "log", "said"), BUILDAH)
def test_buildah_failures_in_one_sentence(dockerfile: str, log: str, said: str) -> None:
    assert explain_failure(log.splitlines(), reader(dockerfile=dockerfile)) == said
