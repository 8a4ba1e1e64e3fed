"""Take the README's picture anew: the page Notebooks of a real Hub, as it looks now.

    .venv/bin/python -m tests.picture

It needs Chromium, and takes half a minute.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.hub import ROOT, RunningHub, running_hub, wait_until
from tests.lab import chromium
from tests.shell import EXAMPLES, Shell

PICTURE = ROOT / "docs" / "images" / "notebooks.png"
USER = "ada"


def take(directory: Path, picture: Path) -> None:
    """Start a Hub, deploy what is to be seen, and photograph the page.

    Args:
        directory: an empty one, for the Hub and what is deployed.
        picture: the file to write.
    """
    with running_hub(directory / "hub") as hub:
        shell = Shell(directory / "home", hub, USER)
        shell.log_in()
        try:
            _deploy(shell, directory)
            _photograph(hub, picture)
        finally:
            for each in shell.json("notebook", "list"):
                shell.run("notebook", "delete", "-y", "-n", each["name"])


def _deploy(shell: Shell, directory: Path) -> None:
    """One that runs, one whose build failed, one that was stopped."""
    example = EXAMPLES / "notebook" / "example"
    shell.run("notebook", "deploy", "-s", str(example), "-d", "mnist/data")
    digits = shutil.copytree(example, directory / "digits")
    (digits / "model" / "requirements.txt").write_text("# for the pictures\nhumanize==999.9\n")
    shell.run("notebook", "deploy", "-s", str(digits), "-d", "mnist/data")
    shell.run("notebook", "deploy", "-n", "scratch", "--cpu", "0.5", "--memory", "512Mi")
    shell.run("notebook", "stop", "-n", "scratch")
    wait_until(
        lambda: (
            {each["state"] for each in shell.json("notebook", "list")}
            == {"RUNNING", "FAILED", "STOPPED"}
        ),
        60,
        "what the picture shows",
    )


def _photograph(hub: RunningHub, picture: Path) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 380})
        page.goto(f"{hub.url}/hub/login")
        page.fill("input[name=username]", USER)
        page.fill("input[name=password]", hub.password)
        page.click("#login_submit")
        page.click("a.nav-link:text-is('Notebooks')")
        page.wait_for_selector("h1:text-is('Notebooks')")
        page.evaluate("document.fonts.ready")
        page.screenshot(path=picture, full_page=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        take(Path(temporary), Path(sys.argv[1]) if sys.argv[1:] else PICTURE)
