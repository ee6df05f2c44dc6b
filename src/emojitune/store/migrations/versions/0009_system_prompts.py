"""A fine-tuned model knows the system prompt that it was trained under."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("fine_tuned_models", sa.Column("system_prompt", sa.String()))
