"""Further options of a notebook, as wanted and as it runs"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("notebooks", schema=None) as batch_op:
        for column in ("options", "held_options"):
            batch_op.add_column(
                sa.Column(column, sa.JSON(), nullable=False, server_default=sa.text("'{}'"))
            )


def downgrade() -> None:
    with op.batch_alter_table("notebooks", schema=None) as batch_op:
        for column in ("held_options", "options"):
            batch_op.drop_column(column)
