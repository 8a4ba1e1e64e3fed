"""Trainings, their trials and inputs; whom a job belongs to and what it holds"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "training_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("training", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("trials", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("training_events", schema=None) as batch_op:
        batch_op.create_index("training_events_by_owner", ["owner", "id"], unique=False)
        batch_op.create_index("training_events_by_training", ["training", "id"], unique=False)

    op.create_table(
        "ingests",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("manifest", sa.LargeBinary(32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("index", sa.LargeBinary(32), nullable=False),
        sa.Column("data_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["data_id"],
            ["versions.id"],
        ),
        sa.PrimaryKeyConstraint("owner", "manifest"),
    )
    op.create_table(
        "inputs",
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["versions.id"],
        ),
        sa.PrimaryKeyConstraint("owner", "kind"),
    )
    op.create_table(
        "trainings",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("notebook", sa.String(length=64), nullable=True),
        sa.Column("source_id", sa.Integer(), nullable=True),
        sa.Column("data_id", sa.Integer(), nullable=True),
        sa.Column("manifest_id", sa.Integer(), nullable=True),
        sa.Column("params_id", sa.Integer(), nullable=True),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("goal_metric", sa.String(length=100), nullable=True),
        sa.Column("goal_direction", sa.String(length=8), nullable=True),
        sa.Column("stop_on_failure", sa.Boolean(), nullable=False),
        sa.Column("cpu", sa.Double(), nullable=True),
        sa.Column("memory", sa.BigInteger(), nullable=True),
        sa.Column("gpu", sa.Integer(), nullable=False),
        sa.Column("pool", sa.String(length=64), nullable=True),
        sa.Column("deadline", sa.Integer(), nullable=False),
        sa.Column("pull", sa.Boolean(), nullable=False),
        sa.Column("reproduces", sa.String(length=32), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("ingest_job", sa.String(length=32), nullable=True),
        sa.Column("build_job", sa.String(length=32), nullable=True),
        sa.Column("build_reason", sa.Text(), nullable=False),
        sa.Column("engine", sa.String(length=32), nullable=False),
        sa.Column("environment_key", sa.String(length=64), nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.Column("kill_reason", sa.Text(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("queued", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("best_trial", sa.Integer(), nullable=True),
        sa.Column("best_score", sa.Double(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["data_id"],
            ["versions.id"],
        ),
        sa.ForeignKeyConstraint(
            ["manifest_id"],
            ["versions.id"],
        ),
        sa.ForeignKeyConstraint(
            ["params_id"],
            ["versions.id"],
        ),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["versions.id"],
        ),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("id"),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("trainings", schema=None) as batch_op:
        batch_op.create_index("trainings_by_owner", ["owner", "number"], unique=False)
        batch_op.create_index("trainings_by_state", ["state"], unique=False)

    op.create_table(
        "trials",
        sa.Column("training", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("params", sa.JSON(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("job", sa.String(length=32), nullable=True),
        sa.Column("log_base", sa.BigInteger(), nullable=False),
        sa.Column("cancel_reason", sa.Text(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("output", sa.LargeBinary(32), nullable=True),
        sa.Column("output_size", sa.BigInteger(), nullable=False),
        sa.Column("output_files", sa.Integer(), nullable=False),
        sa.Column("partial", sa.Boolean(), nullable=False),
        sa.Column("skipped", sa.JSON(), nullable=False),
        sa.Column("named_id", sa.Integer(), nullable=True),
        sa.Column("started", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["named_id"],
            ["versions.id"],
        ),
        sa.ForeignKeyConstraint(
            ["training"],
            ["trainings.number"],
        ),
        sa.PrimaryKeyConstraint("training", "number"),
    )
    with op.batch_alter_table("trials", schema=None) as batch_op:
        batch_op.create_index("trials_by_job", ["job"], unique=False)
        batch_op.create_index("trials_by_owner", ["owner", "finished"], unique=False)
        batch_op.create_index("trials_by_score", ["training", "score"], unique=False)
        batch_op.create_index("trials_by_state", ["training", "state", "number"], unique=False)

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("author", sa.String(length=255), nullable=False, server_default="")
        )
        batch_op.add_column(sa.Column("cpu", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("memory", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("gpu", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("pool", sa.String(length=64), nullable=True))
    with op.batch_alter_table("notebooks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("run", sa.String(length=32), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("notebooks", schema=None) as batch_op:
        batch_op.drop_column("run")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        for column in ("pool", "gpu", "memory", "cpu", "author"):
            batch_op.drop_column(column)
    for table in ("trials", "trainings", "inputs", "ingests", "training_events"):
        op.drop_table(table)
