"""Which folder a version was made of, so that another one of its name is told from it"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("versions", sa.Column("origin", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("versions", "origin")
