"""Backups: rows of the database and objects of the store, in a folder, while the service runs.

    kaos-backup.json     what is here; replaced last, so that a backup is whole or the one before
    rows-<when>.gz       all rows, one line of JSON each: ["table", {column: value}]
    more-<when>.gz       objects that rows name but that no owner holds: ["blake3:…", bytes]
    store/               objects, as the store `file` has them; with --without-bundles none
    logs/                logs, and courses of metrics
    files-<when>.tar     the Hub's database and all secrets, where they are in the data directory

**Why it is consistent.** The rows are those of one moment: one transaction reads them. Objects
never change and are never removed by the service, so whatever those rows name was there at that
moment and is there when it is copied, however long that takes. So: rows first, objects then.

Backing up into the same folder again copies only objects that are new. Restoring is the same in the
opposite order: objects first, and the rows last, in one transaction; before that nothing refers to
what was brought, so a restore that was interrupted begins again.

Rows know nothing of the kind of database, nor objects of the kind of store: what was on SQLite and
in a folder can be restored to PostgreSQL and a bucket.
"""

from kaos_hub.service.backup.folder import Backup
from kaos_hub.service.backup.making import make
from kaos_hub.service.backup.restoring import check, restore

__all__ = ["Backup", "check", "make", "restore"]
