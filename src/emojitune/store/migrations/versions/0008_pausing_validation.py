"""A job can be paused while its files are validated, and goes back there."""

from alembic import op

revision = "0008"
down_revision = "0007"

_ALLOWED = (
    ("validating_files", "queued"),
    ("validating_files", "paused"),
    ("validating_files", "failed"),
    ("validating_files", "cancelled"),
    ("queued", "running"),
    ("queued", "paused"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "queued"),
    ("running", "paused"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("paused", "validating_files"),
    ("paused", "queued"),
    ("paused", "cancelled"),
)


def upgrade() -> None:
    pairs = ", ".join(f"('{before}', '{after}')" for before, after in _ALLOWED)
    op.execute("DROP TRIGGER jobs_go_their_way")
    op.execute(
        "CREATE TRIGGER jobs_go_their_way BEFORE UPDATE OF status ON jobs "
        f"WHEN (OLD.status, NEW.status) NOT IN (VALUES {pairs}) "
        "BEGIN SELECT RAISE(ABORT, 'a job cannot go from its status to that one'); END"
    )
