"""Files, jobs with their events and checkpoints, and fine-tuned models."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("status_details", sa.String),
        sa.Column("expires_at", sa.Integer),
        sa.Column("sha256", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("files_by_content", "files", ["sha256"])
    op.create_table(
        "jobs",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.Integer),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("training_file", sa.String, nullable=False),
        sa.Column("validation_file", sa.String),
        sa.Column("suffix", sa.String),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("hyperparameters", sa.JSON, nullable=False),
        sa.Column("method", sa.JSON),
        sa.Column("metadata", sa.JSON),
        sa.Column("integrations", sa.JSON, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("fine_tuned_model", sa.String),
        sa.Column("trained_tokens", sa.Integer),
        sa.Column("estimated_finish", sa.Integer),
        sa.Column("result_files", sa.JSON, nullable=False),
        sa.Column("worker", sa.String),
        sa.Column("lease_expires_at", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_status", "jobs", ["status"])
    op.create_table(
        "job_events",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("level", sa.String, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("key", sa.String),
        sa.UniqueConstraint("job_id", "key", name="one_event_a_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_job", "job_events", ["job_id", "number"])
    op.create_table(
        "job_checkpoints",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.UniqueConstraint("job_id", "step", name="one_checkpoint_a_step"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "fine_tuned_models",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("job_id", sa.String, nullable=False),
        sa.Column("base", sa.String, nullable=False),
        sa.Column("hosted_name", sa.String, nullable=False),
        sa.Column("adapter", sa.String, nullable=False),
        sa.Column("step", sa.Integer),
        sqlite_autoincrement=True,
    )
