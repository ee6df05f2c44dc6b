"""JSON bodies in and out, forms, errors, idempotency keys."""
