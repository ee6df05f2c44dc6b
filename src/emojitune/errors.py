"""Every error that a user may see, in one small tree.

    EmojituneError               message, code, param
    ├── ConfigurationError       settings, keys, ports, the home folder
    ├── InvalidRequestError      a request or a command that breaks a rule
    │   └── InvalidStateError    right in itself, but not possible in the present state
    ├── DatasetError             a training or validation file that cannot be used
    ├── NotFoundError            a file, job or model that is not here
    ├── ModelError               a base model or adapter that cannot be had, read or trusted
    │   └── ConversationError    messages that a model's chat template refuses
    ├── TrainingError            training cannot start, or cannot go on
    ├── StorageError             a disk or a database that takes no more, or no longer answers
    └── ProviderError            the API on the other side refused, or cannot be reached

A message says the rule, what was found and what to do next. Each edge translates the tree once:
`server/http/errors.py` to HTTP statuses, `cli/errors.py` to a message and an exit code.
"""


class EmojituneError(Exception):
    """The root: an error whose message is written for the person who meets it.

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
    """Right in itself, but not possible in the present state."""


class DatasetError(EmojituneError):
    """A training or validation file that cannot be used."""


class NotFoundError(EmojituneError):
    """A file, job or model that is not here."""


class ModelError(EmojituneError):
    """A base model or adapter that cannot be had, read or trusted."""


class ConversationError(ModelError):
    """Messages that a model's chat template refuses."""


class TrainingError(EmojituneError):
    """Training cannot start, or cannot go on."""


class StorageError(EmojituneError):
    """A disk or a database that takes no more, or no longer answers."""


class ProviderError(EmojituneError):
    """The API on the other side refused, or cannot be reached."""
