"""A job's status can change only as `jobs/states.py` has it, whoever writes the SQL."""

from alembic import op

revision = "0007"
down_revision = "0006"

_ALLOWED = (
    ("validating_files", "queued"),
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
    ("paused", "queued"),
    ("paused", "cancelled"),
)


def upgrade() -> None:
    pairs = ", ".join(f"('{before}', '{after}')" for before, after in _ALLOWED)
    op.execute(
        "CREATE TRIGGER jobs_begin BEFORE INSERT ON jobs "
        "WHEN NEW.status <> 'validating_files' "
        "BEGIN SELECT RAISE(ABORT, 'a job begins with its files being validated'); END"
    )
    op.execute(
        "CREATE TRIGGER jobs_go_their_way BEFORE UPDATE OF status ON jobs "
        f"WHEN (OLD.status, NEW.status) NOT IN (VALUES {pairs}) "
        "BEGIN SELECT RAISE(ABORT, 'a job cannot go from its status to that one'); END"
    )
