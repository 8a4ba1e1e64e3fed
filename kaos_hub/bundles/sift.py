"""Which files of a folder belong to a bundle, where only their paths are known: as a scan says it,
for browsers, which read folders but know no rules.
"""

from collections.abc import Iterable, Mapping

from kaos_hub.bundles import tree
from kaos_hub.bundles.ignore import IGNORE_FILE, Rules
from kaos_hub.bundles.limits import Limits, refuse
from kaos_hub.models import Skipped


def sift(
    paths: Iterable[str], ignores: Mapping[str, str], rules: Rules, limits: Limits
) -> list[Skipped]:
    """What is left out, and why.

    Args:
        paths: of files, within the folder.
        ignores: path → content of the files ``.kaosignore`` among them.
        rules: of the kind of bundle.
        limits: what a path may be.

    Raises:
        InvalidBundle: a name that no bundle may hold; names it. Or a line that is no pattern.
    """
    sifter = _Sifter(ignores, rules)
    for path in paths:
        if not sifter.leaves_out(path):
            sifter.check(path, limits)
    return [Skipped(path=path, reason=reason) for path, reason in sifter.reasons.items()]


class _Sifter:
    """The rules of each folder, found once."""

    def __init__(self, ignores: Mapping[str, str], rules: Rules) -> None:
        self._ignores = ignores
        self._rules = {"": self._within("", rules)}
        self._left_out: dict[str, str] = {"": ""}
        self.reasons: dict[str, str] = {}

    def _within(self, folder: str, rules: Rules) -> Rules:
        text = self._ignores.get(tree.join(folder, IGNORE_FILE))
        if text is None or not rules.read_files:
            return rules
        return rules.within(folder, text.encode())

    def leaves_out(self, path: str) -> str:
        """What leaves a file out: itself, or a folder above it; empty if it belongs to it."""
        folder = path.rpartition("/")[0]
        above = self._folder(folder)
        if above:
            return above
        return self._skipped(path, False, self._rules[folder])

    def _skipped(self, path: str, directory: bool, rules: Rules) -> str:
        if not rules.skips(path, directory):
            return ""
        out = path + "/" * directory
        listed = Rules(specs=rules.specs).skips(path, directory)
        self.reasons[out] = f"{IGNORE_FILE} lists it" if listed else "tools leave it behind"
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
