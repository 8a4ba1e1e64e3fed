"""Contexts of notebooks, and the tree that a running one follows"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("notebooks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("context_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("good_tree", sa.LargeBinary(32), nullable=True))
        batch_op.create_foreign_key("notebooks_context", "versions", ["context_id"], ["id"])


def downgrade() -> None:
    with op.batch_alter_table("notebooks", schema=None) as batch_op:
        batch_op.drop_constraint("notebooks_context", type_="foreignkey")
        for column in ("good_tree", "context_id"):
            batch_op.drop_column(column)
