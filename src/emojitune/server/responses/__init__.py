"""`/v1/responses`: requests, items, responses, and stored responses."""
