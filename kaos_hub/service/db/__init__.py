"""The database of the service: tables, sessions, migrations."""
