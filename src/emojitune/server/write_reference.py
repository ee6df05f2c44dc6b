"""`python -m emojitune.server.write_reference docs/api.md`: the reference as a file."""

import sys
from pathlib import Path

from emojitune.server.app import create_app
from emojitune.server.docs.markdown import markdown
from emojitune.server.docs.openapi import openapi_document
from emojitune.server.docs.reference import endpoints
from emojitune.settings import Settings


def reference() -> str:
    """The text of docs/api.md, without starting a server or creating a folder."""
    app = create_app(Settings(api_key="none"))
    return markdown(endpoints(openapi_document(app)))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
