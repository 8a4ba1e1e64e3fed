"""The meaning of a base image, by owner"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def _columns() -> list["sa.Column[Any]"]:
    return [
        sa.Column("engine", sa.String(length=32), nullable=False),
        sa.Column("reference", sa.String(length=512), nullable=False),
        sa.Column("resolved", sa.String(length=512), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    ]


def upgrade() -> None:
    rows = _of_owners(op.get_bind())
    op.drop_table("bases")
    bases = op.create_table(
        "bases",
        sa.Column("owner", sa.String(length=255), nullable=False),
        *_columns(),
        sa.PrimaryKeyConstraint("owner", "engine", "reference"),
    )
    if rows:
        op.bulk_insert(bases, rows)


def _of_owners(bind: sa.Connection) -> list[dict[str, Any]]:
    """List the bases that owners built on, and for every owner with a notebook those of no Dockerfile."""
    bases = sa.table("bases", *(sa.column(c.name, c.type) for c in _columns()))
    rows = bind.execute(sa.select(bases)).mappings()
    shared = {(row["engine"], row["reference"]): dict(row) for row in rows}
    built = sa.table(
        "images",
        sa.column("owner", sa.String()),
        sa.column("engine", sa.String()),
        sa.column("inputs", sa.JSON()),
        sa.column("created", sa.DateTime(timezone=True)),
    )
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in bind.execute(sa.select(built).order_by(built.c.created)).mappings():
        for reference, resolved in (row["inputs"].get("bases") or {}).items():
            found[row["owner"], row["engine"], reference] = {
                "owner": row["owner"],
                "engine": row["engine"],
                "reference": reference,
                "resolved": resolved,
                "at": row["created"],
            }
    in_dockerfiles = {(key[1], key[2]) for key in found}
    notebooks = sa.table("notebooks", sa.column("owner", sa.String()))
    for owner in bind.execute(sa.select(notebooks.c.owner).distinct()).scalars().all():
        for (engine, reference), known in shared.items():
            if (engine, reference) not in in_dockerfiles:
                found.setdefault((owner, engine, reference), {"owner": owner, **known})
    return list(found.values())


def downgrade() -> None:
    op.drop_table("bases")
    op.create_table(
        "bases",
        *_columns(),
        sa.PrimaryKeyConstraint("engine", "reference"),
    )
