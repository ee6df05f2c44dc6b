"""The parameters that requests for a chat completion and for a response have in common.

They are declared here once, so that their bounds cannot drift apart.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from emojitune.server.http.json_bodies import Metadata, StrictModel, refuse
from emojitune.server.http.unsupported import Ignored, Refused

ONE_TIER = Ignored("one machine serves all requests alike")  # the APIs differ in the tiers' names
_ABUSE = Ignored("it names a person to the hosted service's checks against abuse")
_CACHE = Ignored("the prefix cache finds common beginnings by itself")

_MAX_LABEL_CHARACTERS = 2_000_000  # they are tokenized in about two seconds

ModelName = Annotated[
    str, Field(min_length=1, description="A base model, an alias or a fine-tuned model.")
]


class CacheOptions(StrictModel):
    """How the hosted service caches a prompt."""

    mode: Literal["implicit", "explicit"] | None = Field(
        None, description="Whether it chooses by itself what is cached."
    )
    ttl: Literal["30m"] | None = Field(None, description="Minimum lifetime of the cache.")


class GenerationRequest(StrictModel):
    """Parameters of how a reply is generated; `decoding` and `labels` are extensions of the API."""

    temperature: float = Field(
        1.0,
        ge=0,
        le=2,
        description="0 takes the most probable token or label, higher values vary more.",
    )
    top_p: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Samples only from the most probable that together hold this much.",
    )
    stream: bool = Field(False, description="Whether the reply is streamed while it is generated.")
    metadata: Metadata | None = Field(
        None, description="Up to 16 key-value pairs that are stored with the reply."
    )
    decoding: Literal["labels", "free"] | None = Field(
        None,
        description="`labels` constrains the reply to the model's closed vocabulary, the default "
        "where it has one; `free` does not.",
    )
    labels: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=1000)]],
            Field(min_length=1, max_length=10_000),
        ]
        | None
    ) = Field(
        None,
        description="Constrains the reply to these texts, on any model; together they may have "
        f"{_MAX_LABEL_CHARACTERS} characters.",
    )

    user: Annotated[str | None, _ABUSE] = None
    safety_identifier: Annotated[str | None, Field(max_length=64), _ABUSE] = None
    prompt_cache_key: Annotated[str | None, _CACHE] = None
    prompt_cache_options: Annotated[CacheOptions | None, _CACHE] = None
    prompt_cache_retention: Annotated[Literal["in_memory", "24h"] | None, _CACHE] = None

    moderation: Annotated[Any, Refused("nothing moderates")] = None

    @model_validator(mode="after")
    def _labels_are_few(self) -> Self:
        characters = sum(map(len, self.labels or ()))
        if characters > _MAX_LABEL_CHARACTERS:
            refuse(
                "string_above_max_length",
                f"Invalid 'labels': texts too long. Expected at most {_MAX_LABEL_CHARACTERS} "
                f"characters together, but got {characters}. Send fewer or shorter labels.",
                "labels",
            )
        return self

    @model_validator(mode="after")
    def _labels_are_not_free(self) -> Self:
        if self.labels is not None and self.decoding == "free":
            refuse(
                "invalid_parameter_combination",
                "With 'labels' a reply is one of them, which 'decoding': 'free' forbids. "
                "Leave one of the two out.",
                "labels",
            )
        return self


def refuse_without(param: str, condition: str) -> None:
    """Refuse `param` in a model's own validator, since `condition` is not met."""
    refuse(None, f"The '{param}' parameter is only allowed when {condition}.", param)
