"""HTTP for all endpoints: bodies, queries and forms, responses and errors, idempotency keys."""
