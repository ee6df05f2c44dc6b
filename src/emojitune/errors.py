"""All errors that a user may see, in one small tree.

    EmojituneError               message, code, param
    ├── ConfigurationError       settings, keys, ports, the home folder
    ├── InvalidRequestError      a request or a command that breaks a rule
    │   └── InvalidStateError    valid, but not possible in the current state
    ├── DatasetError             a training or validation file that cannot be used
    ├── NotFoundError            a file, job or model that does not exist
    ├── ModelError               a base model or adapter that cannot be fetched, read or trusted
    │   └── ConversationError    messages that a model's chat template refuses
    ├── TrainingError            training cannot start, or cannot continue
    ├── StorageError             a disk or database that is full, read-only or not responding
    └── ProviderError            the API on the other side refused, or cannot be reached

A message states the rule, what was found and what to do next. Each edge translates the tree once:
`server/http/errors.py` to HTTP statuses, `cli/errors.py` to a message and an exit code.
"""


class EmojituneError(Exception):
    """The root: an error whose message is written for the user.

    Args:
        message: The rule, what was found, and what to do next.
        code: A stable machine-readable name, as OpenAI's `error.code`; None where OpenAI has none.
        param: The request parameter or setting at fault, if there is one.
    """

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param


class ConfigurationError(EmojituneError):
    """Settings, keys, ports, the home folder."""


class InvalidRequestError(EmojituneError):
    """A request or a command that breaks a rule."""


class InvalidStateError(InvalidRequestError):
    """Valid, but not possible in the current state."""


class DatasetError(EmojituneError):
    """A training or validation file that cannot be used."""


class NotFoundError(EmojituneError):
    """A file, job or model that does not exist."""


class ModelError(EmojituneError):
    """A base model or adapter that cannot be fetched, read or trusted."""


class ConversationError(ModelError):
    """Messages that a model's chat template refuses."""


class TrainingError(EmojituneError):
    """Training cannot start, or cannot continue."""


class StorageError(EmojituneError):
    """A disk or database that is full, read-only or not responding."""


class ProviderError(EmojituneError):
    """The API on the other side refused, or cannot be reached."""
