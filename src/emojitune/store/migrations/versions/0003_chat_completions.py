"""Stored chat completions."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "chat_completions",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("completion", sa.JSON, nullable=False),
        sa.Column("messages", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
