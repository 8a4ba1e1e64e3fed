"""Modules that Jupyter's programs import and never use."""

import sys


def leave_out() -> None:
    """Keep a Hub or a Jupyter server from building parsers for one kind of JSON string
    (``format: iri``), a third to a half of its start. To be called before they are imported.

    jsonschema does without them where the module is absent, and None in the table of modules is
    Python's way to say that it is.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
