"""Projects: whose each row is, and the keys that act for them.

What is there belongs to the default project. A row that is added without a project is nobody's.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_OWNED = (
    "files",
    "jobs",
    "fine_tuned_models",
    "uploads",
    "batches",
    "chat_completions",
    "checkpoint_permissions",
    "creations",
    "responses",
)


def upgrade() -> None:
    for table in _OWNED:
        project = sa.Column("project", sa.String, nullable=False, server_default="")
        op.add_column(table, project)
        op.execute(f"UPDATE {table} SET project = 'default'")
    op.drop_index("creations_by_content", "creations")
    op.drop_index("creations_by_key", "creations")
    op.create_index("creations_by_content", "creations", ["project", "path", "digest"])
    op.create_index("creations_by_key", "creations", ["project", "path", "key"], unique=True)
    op.create_table(
        "keys",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project", sa.String, nullable=False, server_default=""),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("revoked_at", sa.Integer),
        sqlite_autoincrement=True,
    )
