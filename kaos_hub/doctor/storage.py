"""Checks that bundles and the database can be used, where they are not on this machine."""

import asyncio
import os

from kaos_hub.doctor.finding import BAD, GOOD, Finding
from kaos_hub.errors import KaosError
from kaos_hub.installation.datadir import DataDir


def checks(data: DataDir) -> list[Finding]:
    """Return the findings; none where all lies in the data directory.

    Settings that stand in a configuration file are not looked at: that is a program, to be run by
    the Hub. What the environment and the secrets say is what a chart sets.
    """
    return [*store(data), *database(data)]


def store(data: DataDir) -> list[Finding]:
    """The store that KAOS_STORE names."""
    url = os.environ.get("KAOS_STORE") or "file"
    if url == "file":
        return []
    from kaos_hub.stores.access import open_store

    try:
        opened = open_store(url, data.secrets)
        asyncio.run(opened.probe())
    except KaosError as e:
        return [Finding("store", BAD, e.message, "docs/howto/storage.md tells how it is set up.")]
    return [Finding("store", GOOD, f"can be read and written: {opened.url}")]


def database(data: DataDir) -> list[Finding]:
    """The database that KAOS_DATABASE_URL or the secret `database-url` names."""
    try:
        secret = data.secret("database-url") if data.has_secret("database-url") else ""
        url = os.environ.get("KAOS_DATABASE_URL") or secret
        if not url:
            return []
        from kaos_hub.service.db.database import Database

        opened = Database(url)
    except KaosError as e:
        return [Finding("database", BAD, e.message)]
    try:
        asyncio.run(opened.probe())
    except KaosError as e:
        return [Finding("database", BAD, e.message)]
    finally:
        opened.close()
    return [Finding("database", GOOD, f"answers: {opened.shown}")]
