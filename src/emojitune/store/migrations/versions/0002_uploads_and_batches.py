"""Uploads with their parts, and batches with their results."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("file_seconds", sa.Integer),
        sa.Column("file_id", sa.String),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "upload_parts",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("upload_id", sa.String, sa.ForeignKey("uploads.id"), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("parts_by_upload", "upload_parts", ["upload_id"])
    op.create_table(
        "batches",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("input_file_id", sa.String, nullable=False),
        sa.Column("completion_window", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("model", sa.String),
        sa.Column("errors", sa.JSON),
        sa.Column("output_file_id", sa.String),
        sa.Column("error_file_id", sa.String),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("in_progress_at", sa.Integer),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.Column("finalizing_at", sa.Integer),
        sa.Column("completed_at", sa.Integer),
        sa.Column("failed_at", sa.Integer),
        sa.Column("expired_at", sa.Integer),
        sa.Column("cancelling_at", sa.Integer),
        sa.Column("cancelled_at", sa.Integer),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("usage", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("output_seconds", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_index("batches_by_status", "batches", ["status"])
    op.create_table(
        "batch_results",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("batch_id", sa.String, sa.ForeignKey("batches.id"), nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("content", sa.String, nullable=False),
        sa.UniqueConstraint("batch_id", "line", name="one_result_a_line"),
        sqlite_autoincrement=True,
    )
