"""The choice of files that belong to a bundle, where only their paths are known.

It is that of a scan, for browsers, which read folders but know no rules. A request that may take
long runs as a process of its own, which reads it as JSON and answers so::

    python -m kaos_hub.bundles.sift LIMITS
"""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from kaos_hub.bundles import tree
from kaos_hub.bundles.ignore import ENVIRONMENT_MARKS, IGNORE_FILE, Rules, rules_for
from kaos_hub.bundles.limits import Limits, refuse
from kaos_hub.errors import KaosError
from kaos_hub.schemas import SiftAnswer, SiftRequest, Skipped
from kaos_hub.util import limited

MODULE = "kaos_hub.bundles.sift"
MEMORY = 1 << 30
"""Bytes of address space of the process."""
SECONDS = 10
"""Of its computing: some millions of comparisons."""
_QUICK = 20_000_000


def quick(asked: SiftRequest) -> bool:
    """Tell whether a request is answered in less than the time that a process takes to start."""
    paths = sum(map(len, asked.paths))
    return paths * sum(map(len, asked.ignores.values())) < _QUICK


def sift(
    paths: Iterable[str], ignores: Mapping[str, str], rules: Rules, limits: Limits
) -> list[Skipped]:
    """Return what is left out, and why.

    Args:
        paths: of files, within the folder.
        ignores: path → content of the files ``.kaosignore`` among them.
        rules: of the kind of bundle.
        limits: what a path may be.

    Raises:
        InvalidBundle: a name that no bundle may hold; names it. Or a line that is no pattern.
    """
    found = list(paths)
    sifter = _Sifter(ignores, rules, _environments(found))
    for path in found:
        if not sifter.leaves_out(path):
            sifter.check(path, limits)
    return [Skipped(path=path, reason=reason) for path, reason in sifter.reasons.items()]


def _environments(paths: Iterable[str]) -> set[str]:
    """The folders that are virtual environments."""
    parts = (path.split("/") for path in paths)
    marks = ((p, n) for p in parts for n, name in enumerate(p) if n and name in ENVIRONMENT_MARKS)
    return {"/".join(names[:number]) for names, number in marks}


class _Sifter:
    """The rules of each folder, found once."""

    def __init__(self, ignores: Mapping[str, str], rules: Rules, environments: set[str]) -> None:
        self._ignores = ignores
        self._environments = environments
        self._rules = {"": self._within("", rules)}
        self._left_out: dict[str, str] = {"": ""}
        self.reasons: dict[str, str] = {}

    def _within(self, folder: str, rules: Rules) -> Rules:
        text = self._ignores.get(tree.join(folder, IGNORE_FILE))
        if text is None or not rules.read_files:
            return rules
        return rules.within(folder, text.encode())

    def leaves_out(self, path: str) -> str:
        """Return what leaves a file out: itself, or a folder above it; empty if nothing does."""
        folder = path.rpartition("/")[0]
        above = self._folder(folder)
        if above:
            return above
        return self._skipped(path, False, self._rules[folder])

    def _skipped(self, path: str, directory: bool, rules: Rules) -> str:
        environment = directory and path in self._environments
        if not rules.skips(path, directory, environment):
            return ""
        out = path + "/" * directory
        listed = Rules(specs=rules.specs).skips(path, directory)
        usual = "it is a virtual environment" if environment else "tools leave it behind"
        self.reasons[out] = f"{IGNORE_FILE} lists it" if listed else usual
        return out

    def _folder(self, folder: str) -> str:
        if folder not in self._left_out:
            parent = folder.rpartition("/")[0]
            out = self._folder(parent)
            if not out:
                rules = self._rules[parent]
                out = self._skipped(folder, True, rules)
                self._rules[folder] = rules if out else self._within(folder, rules)
            self._left_out[folder] = out
        return self._left_out[folder]

    def check(self, path: str, limits: Limits) -> None:
        if not path:
            raise refuse(path, "is no file")
        where = ""
        for part in path.split("/"):
            try:
                raw = part.encode()
            except UnicodeEncodeError:
                raise refuse(path, "has a name that is not UTF-8; rename it") from None
            where = tree.join(where, tree.check_name(raw, where))
        limits.check_path(path)


def _main(limits: str) -> dict[str, Any]:
    limited.limit(MEMORY, SECONDS)
    asked = SiftRequest.model_validate_json(sys.stdin.buffer.read())
    try:
        skipped = sift(
            asked.paths, asked.ignores, rules_for(asked.kind), Limits(**json.loads(limits))
        )
    except KaosError as e:
        return {"error": e.body()}
    return SiftAnswer(skipped=skipped).model_dump(mode="json")


if __name__ == "__main__":
    print(json.dumps(_main(*sys.argv[1:])))
