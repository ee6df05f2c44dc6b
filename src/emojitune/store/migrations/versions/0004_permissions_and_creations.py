"""Checkpoint permissions, and the notes that tell a repeated request from a second one."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "checkpoint_permissions",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("project_id", sa.String, nullable=False),
        sa.UniqueConstraint("model", "project_id", name="one_permission_a_project"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "creations",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("subject", sa.String, nullable=False, unique=True),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("key", sa.String),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.Column("answered_at", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("creations_by_content", "creations", ["path", "digest"])
    op.create_index("creations_by_key", "creations", ["path", "key"], unique=True)
