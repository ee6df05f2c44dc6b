"""The API's description: `/openapi.json`, `/docs` and docs/api.md."""
