"""Files that a request refers to by id: they must exist, and have the purpose that it needs."""

from emojitune.errors import InvalidRequestError, NotFoundError
from emojitune.store.files import FileStore


def require_file(files: FileStore, file_id: str, *, purpose: str, role: str, param: str) -> None:
    """Check that a request may use a file.

    Args:
        purpose: The purpose that the file must have been uploaded with.
        role: The file's role in the request, as messages name it: "A training file".
        param: The request's parameter that holds the id.

    Raises:
        InvalidRequestError: The file does not exist, or has another purpose.
    """
    try:
        actual = files.get(file_id).purpose
    except NotFoundError:
        raise InvalidRequestError(
            f"File '{file_id}' does not exist. Upload it first, with purpose {purpose}.",
            param=param,
        ) from None
    if actual != purpose:
        raise InvalidRequestError(
            f"{role} needs the purpose {purpose}, and '{file_id}' was uploaded with {actual}. "
            "Upload it again.",
            param=param,
        )
