"""Why a trial failed, from the last that it printed."""

from pathlib import Path

import pytest

from kaos_hub.workload.trial.reason import reason

PLACE = '  File "/opt/program/'


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (
            f'{PLACE}./train", line 3\n    def x(:\n        ^\nSyntaxError: oh\n',
            "train line 3: SyntaxError: oh",
        ),
        (
            f"""Traceback (most recent call last):
{PLACE}./train", line 3, in <module>
ValueError: first
During handling of the above exception, another exception occurred:
Traceback (most recent call last):
{PLACE}lib/a.py", line 9, in <module>
  File "/usr/lib/python3/json/__init__.py", line 5, in loads
    raise
json.JSONDecodeError: Expecting value
  and more of it
to the end
cleaning up
""",
            "lib/a.py line 9: json.JSONDecodeError: Expecting value",
        ),
        (
            '  File "/usr/lib/runpy.py", line 5, in x\nImportError\n',
            "/usr/lib/runpy.py line 5: ImportError",
        ),
        (
            "Error in library(caret) : no package\nExecution halted\n",
            "exit code 1: Error in library(caret) : no package",
        ),
        (
            "/train:3\nthrow new Error()\n\nError: x\n    at f (/train:3:7)\n\nNode 1\n",
            "exit code 1: Error: x",
        ),
        ("\x1b[31mIt\x1b[0m broke\n", "exit code 1: It broke"),
        (" 10%|#\r100%|####\n", "exit code 1: 100%|####"),
        ("", "exit code 1; it printed nothing"),
    ],
)
def test_the_line_that_died(tail: str, said: str) -> None:
    assert reason(tail, Path("/opt/program"), 1) == said
