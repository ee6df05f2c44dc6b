"""Settings: the only reader of the environment (`EMOJITUNE_*`).

Knows names, types and defaults; opens nothing and creates nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def header_value(name: str, value: str) -> str:
    """`value` as an HTTP header can carry it, without surrounding white space.

    Raises:
        ValueError: It has characters other than visible ASCII. The message does not repeat them:
            `value` may be a key.
    """
    value = value.strip()
    position = next(
        (number for number, character in enumerate(value, 1) if not "!" <= character <= "~"), None
    )
    if position is not None:
        raise ValueError(
            f"{name} may have visible ASCII characters only, and character {position} of "
            f"{len(value)} is not one. Copy it again: editors replace quotes and dots"
        )
    return value


def read_key_file(path: Path) -> str:
    """The API key in a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is empty, or no client can send the key.
    """
    key = header_value(f"The key in {path}", path.read_text(encoding="utf-8", errors="replace"))
    if not key:
        raise ValueError(f"{path} must hold a key, and is empty. Restart the server: it makes one")
    return key


class Settings(BaseSettings):
    """Frozen settings; each field is also the environment variable `EMOJITUNE_<FIELD>`.

    Surrounding white space is stripped, and an empty value counts as unset.
    """

    model_config = SettingsConfigDict(
        env_prefix="EMOJITUNE_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # the input may be the key, and a notebook stores its output
    )

    home: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_path("emojitune", appauthor=False)),
        description="Folder of everything a server keeps: database, files, adapters, its key.",
    )
    cache: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_path("emojitune", appauthor=False)),
        description="Folder of downloaded base models, and of cached replies of base models, "
        "shared by all homes.",
    )
    host: str = Field("127.0.0.1", description="Address that the server listens on.")
    port: int = Field(8808, ge=0, le=65535, description="Port of the server; 0 takes a free one.")
    api_key: SecretStr | None = Field(
        None, description="Bearer key of the server; unset: made once and kept in the home folder."
    )
    tls_cert: Path | None = Field(
        None, description="PEM file of the server's certificate, with its chain; unset: plain HTTP."
    )
    tls_key: Path | None = Field(None, description="PEM file of that certificate's key.")
    organization: str = Field(
        "local",
        pattern="^[A-Za-z0-9_-]+$",
        description="Third part of fine-tuned model names, and `organization_id`.",
    )
    base_model: str = Field(
        "smollm2-135m-instruct",
        description="The model that serves OpenAI's names (gpt-3.5-turbo, ...): a "
        "catalog name, a Hugging Face repository id (`org/name@revision`), or a folder.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where models run; auto is CUDA if available."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of the frozen weights; auto chooses by the instructions "
        "that the processor has.",
    )
    threads: int = Field(0, ge=0, description="CPU threads of one process; 0 lets torch decide.")
    chat_memory: int | None = Field(
        None,
        ge=0,
        description="Bytes of memory for all loaded models: base models, adapters and their "
        "caches; unset: a quarter of the memory of the machine, or of its GPU where models run "
        "there. The least recently used are evicted; the requested model is always loaded.",
    )
    max_running_jobs: int = Field(1, ge=1, description="Maximum number of concurrent jobs.")
    checkpoint_seconds: float = Field(
        30.0,
        ge=0,
        description="Seconds between checkpoints: the most that a training job loses when it is "
        "interrupted; 0 saves after each step.",
    )
    label_meanings: bool = Field(
        True,
        description="Whether a job whose labels are in the emoji vocabulary also trains on their "
        "meanings: better quality, longer training.",
    )
    neighbours: bool = Field(
        True,
        description="Whether replies of a closed-vocabulary model are re-ranked by the nearest "
        "neighbours of the prompt among the training examples.",
    )
    # More than the machine can serve in a minute: only a runaway program reaches these limits.
    requests_per_minute: int = Field(
        3000,
        ge=0,
        description="Requests per minute of each key made by `keys create`; 0: unlimited.",
    )
    bytes_per_minute: int = Field(
        1024**3,
        ge=0,
        description="Bytes per minute of each of these keys; 0: unlimited.",
    )
    concurrent_requests: int = Field(
        128,
        ge=1,
        description="Concurrent requests of each key, streams included.",
    )
    log_content: bool = Field(
        False, description="Whether the bodies of requests and responses are logged."
    )
    max_file_bytes: int = Field(
        512 * 1024 * 1024, ge=1, description="Maximum size of an uploaded file."
    )

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        tidy = {key: one.strip() if isinstance(one, str) else one for key, one in given.items()}
        return {key: value for key, value in tidy.items() if value != ""}

    @field_validator("home", "cache", "tls_cert", "tls_key")
    @classmethod
    def _expand_user(cls, path: Path | None) -> Path | None:
        try:
            return path and path.expanduser()
        except RuntimeError as error:  # no such user
            reason = str(error).rstrip(".")
            raise ValueError(f"{path} cannot be resolved ({reason})") from None

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, host: str) -> str:
        """An IPv6 address without the brackets that it has in a URL."""
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, key: SecretStr | None) -> SecretStr | None:
        return key and SecretStr(header_value("The key", key.get_secret_value()))

    @property
    def url_host(self) -> str:
        """The address as a URL writes it: IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def files(self) -> Path:
        """Folder of uploaded files and results, by content."""
        return self.home / "files"

    @property
    def upload_parts(self) -> Path:
        """Folder of the parts of uploads that are not complete yet."""
        return self.files / "parts"

    @property
    def adapters(self) -> Path:
        """Folder of fine-tuned adapters, one folder each."""
        return self.home / "adapters"

    @property
    def runs(self) -> Path:
        """Folder of training runs: one folder a job, with its checkpoints and its log."""
        return self.home / "runs"
