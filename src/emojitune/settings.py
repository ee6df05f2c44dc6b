"""Settings: the only reader of the environment (`EMOJITUNE_*`).

Knows names, types and defaults; opens nothing and creates nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def header_text(name: str, value: str) -> str:
    """`value` as it may stand in an HTTP header, white space around it taken off.

    Raises:
        ValueError: It has other characters than visible ASCII. They are not repeated: `value` may
            be a key.
    """
    value = value.strip()
    found = next((place for place, sign in enumerate(value, 1) if not "!" <= sign <= "~"), None)
    if found is not None:
        raise ValueError(
            f"{name} may have visible ASCII characters only, and character {found} of "
            f"{len(value)} is not one. Copy it again: editors replace quotes and dots"
        )
    return value


def read_key(path: Path) -> str:
    """The key in a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is empty, or no client can send the key.
    """
    key = header_text(f"The key in {path}", path.read_text(encoding="utf-8", errors="replace"))
    if not key:
        raise ValueError(f"{path} must hold a key, and is empty. Restart the server: it makes one")
    return key


class Settings(BaseSettings):
    """Frozen settings; each field is also the environment variable `EMOJITUNE_<FIELD>`.

    White space around a value is no part of it, and an empty value counts as none.
    """

    model_config = SettingsConfigDict(
        env_prefix="EMOJITUNE_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # it may be the key, and a notebook keeps what it shows
    )

    home: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_path("emojitune", appauthor=False)),
        description="Folder of everything a server keeps: database, files, adapters, its key.",
    )
    cache: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_path("emojitune", appauthor=False)),
        description="Folder of downloaded base models, and what untuned ones were heard to reply, "
        "shared by all homes.",
    )
    host: str = Field("127.0.0.1", description="Address the server listens on.")
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
        description="What OpenAI's names of tunable bases (gpt-3.5-turbo, ...) stand for: a "
        "catalog name, a Hugging Face repository id (`org/name@revision`), or a folder.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where models run; auto takes CUDA when there is some."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of the frozen weights; auto measures nothing, it asks "
        "the processor what it multiplies well.",
    )
    threads: int = Field(0, ge=0, description="CPU threads of one process; 0 lets torch decide.")
    chat_memory: int | None = Field(
        None,
        ge=0,
        description="Bytes that the models which reply may take together, base models, adapters "
        "and their caches; unset: a quarter of the memory of the machine, or of its GPU where "
        "models run there. Beyond it the least recently used are given up; the one that is asked "
        "for always has room.",
    )
    max_running_jobs: int = Field(1, ge=1, description="Training jobs that run at the same time.")
    checkpoint_seconds: float = Field(
        30.0,
        ge=0,
        description="A training job can go on from where it was at most so many seconds ago, "
        "whatever happens; 0 saves after each step.",
    )
    label_meanings: bool = Field(
        True,
        description="Whether a job whose labels the emoji vocabulary knows also trains what they "
        "mean: quality for time.",
    )
    neighbours: bool = Field(
        True,
        description="Whether a tuned model that replies from a closed set also looks at the "
        "training examples that are most like a prompt.",
    )
    # More than the machine answers in a minute: only a program that runs wild meets them.
    requests_per_minute: int = Field(
        3000,
        ge=0,
        description="Requests that each key made by `keys create` may send in a minute; 0: any.",
    )
    bytes_per_minute: int = Field(
        1024**3,
        ge=0,
        description="Bytes that each of these keys may send in a minute; 0: any.",
    )
    concurrent_requests: int = Field(
        128,
        ge=1,
        description="Requests, streams too, that each key may have under way at the same time.",
    )
    log_content: bool = Field(
        False, description="Whether the log has the bodies of requests and replies."
    )
    max_file_bytes: int = Field(
        512 * 1024 * 1024, ge=1, description="Largest file that an upload may have."
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
        except RuntimeError as error:  # there is no such user
            said = str(error).rstrip(".")
            raise ValueError(f"{path} cannot be resolved ({said})") from None

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, host: str) -> str:
        """An IPv6 address without the brackets that it has in a URL."""
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host

    @field_validator("api_key")
    @classmethod
    def _sendable(cls, key: SecretStr | None) -> SecretStr | None:
        return key and SecretStr(header_text("The key", key.get_secret_value()))

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
