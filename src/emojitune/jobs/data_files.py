"""A job's training and validation files: read, or an error that its owner can act on."""

from emojitune.dataset.validation import DatasetReport, load_report
from emojitune.errors import NotFoundError
from emojitune.store.stores import Stores


def read_file(file_id: str, stores: Stores, param: str) -> DatasetReport:
    """The usable examples of a file, each with its line.

    Raises:
        NotFoundError: The file or its bytes were deleted.
        DatasetError: Something in it has to be mended first.
    """
    try:
        path = stores.files.path(file_id)
    except NotFoundError as error:
        raise NotFoundError(
            f"The job's {param.replace('_', ' ')} {file_id} was deleted before it was used. "
            "Upload it again and create a new job.",
            code="invalid_" + param,
            param=param,
        ) from error
    if not path.is_file():
        raise NotFoundError(
            f"The bytes of the job's {param.replace('_', ' ')} {file_id} are no longer on this "
            f"server's disk ({path}). Upload it again and create a new job.",
            code="invalid_" + param,
            param=param,
        )
    minimum = 10 if param == "training_file" else 1
    return load_report(path, minimum_examples=minimum, param=param)
