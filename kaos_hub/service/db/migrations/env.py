"""Alembic's entry: the caller hands over its connection."""

from alembic import context

from kaos_hub.service.db.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
