"""The items of stored responses, to be found by their ids.

Those that are there belong to the first response that has them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "response_items",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column(
            "response_id",
            sa.String,
            sa.ForeignKey("responses.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("item_id", sa.String, nullable=False),
        sa.Column("item", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("items_by_response", "response_items", ["response_id"])
    op.create_index("items_by_id", "response_items", ["item_id"])
    op.execute(
        "WITH held AS ("
        " SELECT project, number, responses.id AS response_id, value AS item"
        " FROM responses, json_each(response, '$.output')"
        " UNION ALL"
        " SELECT project, number, responses.id, value FROM responses, json_each(input_items)"
        "), ranked AS ("
        " SELECT *, json_extract(item, '$.id') AS item_id, row_number() OVER"
        " (PARTITION BY project, json_extract(item, '$.id') ORDER BY number) AS place FROM held"
        ") INSERT INTO response_items (response_id, item_id, item)"
        " SELECT response_id, item_id, item FROM ranked WHERE place = 1 ORDER BY number"
    )
