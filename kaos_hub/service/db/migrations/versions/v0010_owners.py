"""The identities of owners, beyond their names"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_OWNED = (
    "holdings", "versions", "images", "jobs", "notebooks", "choices", "volumes", "events",
    "trainings", "trials", "inputs", "ingests", "training_events",
)  # fmt: skip
_WRITTEN = ("versions", "jobs", "trainings", "inputs")


def upgrade() -> None:
    op.create_table(
        "owners",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("identity", sa.String(length=255), nullable=True),
        sa.Column("seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gone", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("owner"),
        sa.UniqueConstraint("identity"),
    )
    with op.batch_alter_table("notebooks") as batch:
        batch.add_column(
            sa.Column("held_name", sa.String(length=255), nullable=False, server_default="")
        )
    owners = " UNION ".join(
        [f"SELECT owner FROM {table}" for table in _OWNED]  # noqa: S608
        + [f"SELECT 'user:' || author FROM {table} WHERE author <> ''" for table in _WRITTEN]  # noqa: S608
    )
    # The first identity that is seen under that name becomes that owner.
    op.execute(
        "INSERT INTO owners (owner, name, seen)"  # noqa: S608
        " SELECT owner, substr(owner, CASE WHEN owner LIKE 'user:%' THEN 6 ELSE 7 END),"
        f" CURRENT_TIMESTAMP FROM ({owners}) AS known"
    )


def downgrade() -> None:
    with op.batch_alter_table("notebooks") as batch:
        batch.drop_column("held_name")
    op.drop_table("owners")
