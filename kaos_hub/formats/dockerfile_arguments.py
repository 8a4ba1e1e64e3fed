"""The arguments that a Dockerfile declares before its first FROM, put into words."""

import re
from collections.abc import Iterable, Mapping

from e2b_dockerfile_utils import ShellLex

from kaos_hub.errors import Unsupported

_PREDEFINED = re.compile(r"(?:BUILD|TARGET)(?:PLATFORM|OS|ARCH|VARIANT)")
_LONGEST_WORD = 4096
"""Characters of an argument, or of a word that arguments are put into."""
_MOST_STARS = 3
"""Wildcards of one substitution; finding what several match may take forever."""


class Arguments:
    """Puts the arguments that stand before the first FROM into words, as the builder does."""

    def __init__(self, escape: str, platform: str, classic: bool) -> None:
        self._escape = escape
        self._classic = classic
        self._known: dict[str, str] = {} if classic else _predefined(platform)

    def declare(self, words: Iterable[str], line: int) -> None:
        """Take over what an ARG says."""
        before = dict(self._known)
        for word in words:
            name, has_default, default = word.partition("=")
            if not name:
                raise Unsupported(f"Dockerfile:{line}: ARG has a blank name; write ARG NAME=value")
            # The classic builder takes all values of a line as they were before it.
            known = before if self._classic else self._known
            value = self.expand(default, line, known) if has_default else ""
            self._known[self.expand(name, line, known)] = value

    def expand(self, word: str, line: int, known: Mapping[str, str] | None = None) -> str:
        """The word without quotes, and with values in place of variables.

        Raises:
            Unsupported: it makes no sense.
        """
        if word.count("*") > _MOST_STARS and "${" in word:
            raise Unsupported(f"Dockerfile:{line}: more than {_MOST_STARS} * in a substitution")
        if len(word) > _LONGEST_WORD:
            raise Unsupported(f"Dockerfile:{line}: a word of {len(word)} characters")
        lexer = ShellLex(
            self._escape, env=self._known if known is None else known, skip_unset_env=False
        )
        try:
            found = str(lexer.process_word(word))
        except ValueError as e:
            raise Unsupported(f"Dockerfile:{line}: {e}") from None
        if len(found) > _LONGEST_WORD:
            raise Unsupported(f"Dockerfile:{line}: more than {_LONGEST_WORD} characters")
        return found

    def without_value(self, word: str) -> list[str]:
        """The variables of a word that nothing gives a value."""
        named = re.findall(r"\$\{?(\w+)", word)
        return [name for name in named if not self._known.get(name)]

    def advice(self, name: str) -> str:
        """Tell how a variable that has no value gets one; goes on from a sentence."""
        if self._classic and _PREDEFINED.fullmatch(name):
            return " with this Docker Engine's builder (the admin can install docker-buildx)"
        return f"; write ARG {name}=… above it"


def _predefined(platform: str) -> dict[str, str]:
    """The arguments that BuildKit and buildah know by themselves."""
    system, architecture, variant = [*platform.split("/", 2), "", ""][:3]
    values = {"PLATFORM": platform, "OS": system, "ARCH": architecture, "VARIANT": variant}
    return {side + name: v for side in ("BUILD", "TARGET") for name, v in values.items()}
