"""Alembic's entry: runs the revisions on the connection that `store/database.py` hands over.

That connection is inside a transaction, so a step and its record are kept together or not at all.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
