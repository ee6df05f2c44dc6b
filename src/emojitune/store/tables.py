"""The tables as the code sees them; `migrations/` creates them, and a test compares the two.

`number` grows with each row: lists are ordered by it, since many rows share one second. `project`
is the owner of a row. Statements on tables with it begin at `scope.ScopedTable`.
"""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()


def _project() -> Column[str]:
    # A row that was added without a project belongs to none.
    return Column("project", String, nullable=False, server_default="")


# A Python None is stored as SQL NULL, not as the JSON text "null".
_json = JSON(none_as_null=True)

files = Table(
    "files",
    metadata,
    Column("number", Integer, primary_key=True),
    _project(),
    Column("id", String, nullable=False, unique=True),
    Column("bytes", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("status", String, nullable=False),
    Column("status_details", String),
    Column("expires_at", Integer),
    Column("sha256", String, nullable=False),
    Index("files_by_content", "sha256"),
    sqlite_autoincrement=True,
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True),
    _project(),
    Column("id", String, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("finished_at", Integer),
    Column("status", String, nullable=False),
    Column("model", String, nullable=False),
    Column("training_file", String, nullable=False),
    Column("validation_file", String),
    Column("suffix", String),
    Column("seed", Integer, nullable=False),
    Column("hyperparameters", _json, nullable=False),
    Column("method", _json),
    Column("metadata", _json),
    Column("integrations", _json, nullable=False),
    Column("error", _json),
    Column("fine_tuned_model", String),
    Column("trained_tokens", Integer),
    Column("estimated_finish", Integer),
    Column("result_files", _json, nullable=False),
    Column("worker", String),
    Column("lease_expires_at", Float),
    Index("jobs_by_status", "status"),
    sqlite_autoincrement=True,
)

events = Table(
    "job_events",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("level", String, nullable=False),
    Column("type", String, nullable=False),
    Column("message", String, nullable=False),
    Column("data", _json, nullable=False),
    Column("key", String),
    UniqueConstraint("job_id", "key", name="one_event_a_key"),
    Index("events_by_job", "job_id", "number"),
    sqlite_autoincrement=True,
)

checkpoints = Table(
    "job_checkpoints",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("model", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("metrics", _json, nullable=False),
    UniqueConstraint("job_id", "step", name="one_checkpoint_a_step"),
    sqlite_autoincrement=True,
)

models = Table(
    "fine_tuned_models",
    metadata,
    Column("number", Integer, primary_key=True),
    _project(),
    Column("name", String, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("job_id", String, nullable=False),
    Column("base", String, nullable=False),
    Column("hosted_name", String, nullable=False),
    Column("adapter", String, nullable=False),
    Column("step", Integer),
    Column("system_prompt", String),
    sqlite_autoincrement=True,
)

uploads = Table(
    "uploads",
    metadata,
    Column("number", Integer, primary_key=True),
    _project(),
    Column("id", String, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("status", String, nullable=False),
    Column("file_seconds", Integer),
    Column("file_id", String),
    sqlite_autoincrement=True,
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("upload_id", ForeignKey("uploads.id"), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Index("parts_by_upload", "upload_id"),
    sqlite_autoincrement=True,
)

batches = Table(
    "batches",
    metadata,
    Column("number", Integer, primary_key=True),
    _project(),
    Column("id", String, nullable=False, unique=True),
    Column("endpoint", String, nullable=False),
    Column("input_file_id", String, nullable=False),
    Column("completion_window", String, nullable=False),
    Column("status", String, nullable=False),
    Column("model", String),
    Column("errors", _json),
    Column("output_file_id", String),
    Column("error_file_id", String),
    Column("created_at", Integer, nullable=False),
    Column("in_progress_at", Integer),
    Column("expires_at", Integer, nullable=False),
    Column("finalizing_at", Integer),
    Column("completed_at", Integer),
    Column("failed_at", Integer),
    Column("expired_at", Integer),
    Column("cancelling_at", Integer),
    Column("cancelled_at", Integer),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("usage", _json, nullable=False),
    Column("metadata", _json),
    Column("output_seconds", Integer),
    Index("batches_by_status", "status"),
    sqlite_autoincrement=True,
)

batch_results = Table(
    "batch_results",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("batch_id", ForeignKey("batches.id"), nullable=False),
    Column("line", Integer, nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("content", String, nullable=False),
    UniqueConstraint("batch_id", "line", name="one_result_a_line"),
    sqlite_autoincrement=True,
)

chat_completions = Table(
    "chat_completions",
    metadata,
    Column("number", Integer, primary_key=True),
    _project(),
    Column("id", String, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("model", String, nullable=False),
    Column("metadata", _json),
    Column("completion", _json, nullable=False),
    Column("messages", _json, nullable=False),
    sqlite_autoincrement=True,
)

permissions = Table(
    "checkpoint_permissions",
    metadata,
    Column("number", Integer, primary_key=True),
    _project(),
    Column("id", String, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("model", String, nullable=False),
    Column("project_id", String, nullable=False),
    UniqueConstraint("model", "project_id", name="one_permission_a_project"),
    sqlite_autoincrement=True,
)

reservations = Table(
    "creations",
    metadata,
    Column("number", Integer, primary_key=True),
    _project(),
    Column("subject", String, nullable=False, unique=True),
    Column("path", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("key", String),
    Column("attempt", Integer, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("answered_at", Float),
    Index("creations_by_content", "project", "path", "digest"),
    Index("creations_by_key", "project", "path", "key", unique=True),
    sqlite_autoincrement=True,
)

responses = Table(
    "responses",
    metadata,
    Column("number", Integer, primary_key=True),
    _project(),
    Column("id", String, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("previous_response_id", String),
    Column("response", _json, nullable=False),
    Column("input_items", _json, nullable=False),
    sqlite_autoincrement=True,
)

response_items = Table(
    "response_items",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("response_id", ForeignKey("responses.id", ondelete="CASCADE"), nullable=False),
    Column("item_id", String, nullable=False),
    Column("item", _json, nullable=False),
    Index("items_by_response", "response_id"),
    Index("items_by_id", "item_id"),
    sqlite_autoincrement=True,
)

keys = Table(
    "keys",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    _project(),
    Column("name", String, nullable=False),
    Column("sha256", String, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("revoked_at", Integer),
    sqlite_autoincrement=True,
)
