"""Which files of a folder belong to a bundle, where only their paths are known: as a scan says it,
for browsers, which read folders but know no rules.
"""

from collections.abc import Iterable, Mapping

from kaos_hub.bundles import tree
from kaos_hub.bundles.ignore import IGNORE_FILE, Rules
from kaos_hub.bundles.limits import Limits, refuse


def sift(
    paths: Iterable[str], ignores: Mapping[str, str], rules: Rules, limits: Limits
) -> list[str]:
    """What is left out, folders with a slash at the end.

    Args:
        paths: of files, within the folder.
        ignores: path → content of the files ``.kaosignore`` among them.
        rules: of the kind of bundle.
        limits: what a path may be.

    Raises:
        InvalidBundle: a name that no bundle may hold; names it. Or a line that is no pattern.
    """
    sifter = _Sifter(ignores, rules)
    skipped: dict[str, None] = {}
    for path in paths:
        out = sifter.leaves_out(path)
        if out:
            skipped[out] = None
        else:
            sifter.check(path, limits)
    return list(skipped)


class _Sifter:
    """The rules of each folder, found once."""

    def __init__(self, ignores: Mapping[str, str], rules: Rules) -> None:
        self._ignores = ignores
        self._rules = {"": self._within("", rules)}
        self._left_out: dict[str, str] = {"": ""}

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
        return path if self._rules[folder].skips(path, False) else ""

    def _folder(self, folder: str) -> str:
        if folder not in self._left_out:
            parent = folder.rpartition("/")[0]
            out = self._folder(parent)
            if not out:
                rules = self._rules[parent]
                out = f"{folder}/" if rules.skips(folder, True) else ""
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
