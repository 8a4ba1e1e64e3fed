"""What a browser without scripts posts of a form."""

from collections.abc import Mapping
from html.parser import HTMLParser


class Form(HTMLParser):
    """The fields of a form as they stand, and what is sent when some are filled in.

    Args:
        page: its HTML.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._offered: dict[str, set[str]] = {}
        self._select = self._area = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        name, value = found.get("name", ""), found.get("value", "")
        if tag == "select":
            self._select = name
        elif tag == "textarea":
            self._area = name
            self.values[name] = ""
        elif tag == "option":
            self._offer(self._select, value, "selected" in found)
        elif tag == "input" and found.get("type") == "radio":
            if "disabled" not in found:
                self._offer(name, value, "checked" in found, first=False)
        elif tag == "input" and name:
            self.values[name] = value

    def _offer(self, name: str, value: str, chosen: bool, first: bool = True) -> None:
        if chosen or (first and name not in self._offered):
            self.values[name] = value
        self._offered.setdefault(name, set()).add(value)

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.values[self._area] += data

    def filled(self, said: Mapping[str, str]) -> dict[str, list[str]]:
        """What is sent, as a server reads it. Nobody can fill in what is not there."""
        for name, value in said.items():
            assert name in self.values, f"there is no field {name!r}"
            assert value in self._offered.get(name, {value}), f"{name}: {value!r} is not offered"
        return {name: [value] for name, value in {**self.values, **said}.items()}
