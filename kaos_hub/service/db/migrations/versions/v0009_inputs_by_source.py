"""Current inputs belong to the name of a source; which of a training's were not given"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def _make(name: str, *keys: str) -> None:
    lengths = {"owner": 255, "source": 64}
    op.create_table(
        name,
        *(sa.Column(key, sa.String(length=lengths[key]), nullable=False) for key in keys),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"]),
        sa.PrimaryKeyConstraint(*keys, "kind"),
    )


def upgrade() -> None:
    op.rename_table("inputs", "inputs_before")
    _make("inputs", "owner", "source")
    # What was current was used with the source that was current.
    op.execute(
        "INSERT INTO inputs (owner, source, kind, version_id, author, at)"
        " SELECT i.owner, COALESCE((SELECT v.name FROM inputs_before s JOIN versions v"
        " ON v.id = s.version_id WHERE s.owner = i.owner AND s.kind = 'source'), ''),"
        " i.kind, i.version_id, i.author, i.at FROM inputs_before i"
    )
    op.drop_table("inputs_before")
    op.add_column("trainings", sa.Column("reused", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("trainings", "reused")
    op.rename_table("inputs", "inputs_after")
    _make("inputs", "owner")
    op.execute(
        "INSERT INTO inputs (owner, kind, version_id, author, at)"
        " SELECT owner, kind, version_id, author, at FROM inputs_after a WHERE source ="
        " (SELECT source FROM inputs_after s WHERE s.owner = a.owner"
        " ORDER BY s.kind = 'source' DESC, s.at DESC LIMIT 1)"
    )
    op.drop_table("inputs_after")
