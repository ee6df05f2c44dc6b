"""Embeddings: texts, or their token ids, as vectors."""

import base64
from typing import Annotated, Any, Literal, TypeGuard

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from emojitune.errors import InvalidRequestError
from emojitune.inference import faults
from emojitune.inference.types import Embeddings
from emojitune.server.context import Context, RequestContext
from emojitune.server.generation.faults import FieldName, spelled
from emojitune.server.generation.streaming import while_connected
from emojitune.server.http.json_bodies import StrictModel, json_body, refuse
from emojitune.server.http.json_responses import encode_json
from emojitune.server.http.unsupported import Ignored
from emojitune.server.models.resolver import get_embedding_model, snapshot_name

router = APIRouter(prefix="/v1/embeddings")

_FIELD_NAMES = {faults.Field.INPUT: FieldName("input", in_message="input[{index}]")}
_MAX_INPUTS = 2048
_KINDS = "a string, an array of strings, an array of token ids, or an array of such arrays"


def _validate_input(value: Any) -> Any:
    """Refuse a value of none of the four kinds, with the place of the first mismatch."""
    if isinstance(value, str):
        _require_nonempty(value, "input")
    elif isinstance(value, list):
        _check_list(value)
    else:
        _wrong_type("input", _KINDS)
    return value


def _check_list(values: list[Any]) -> None:
    _require_nonempty(values, "input")
    if _is_token_ids(values):
        return  # one text: the model knows how many tokens it may have
    if len(values) > _MAX_INPUTS:
        refuse(
            "array_above_max_length",
            f"Invalid 'input': array too long. Expected an array with maximum length {_MAX_INPUTS},"
            f" but got an array with length {len(values)} instead.",
            "input",
        )
    first, expected = values[0], "a string" if isinstance(values[0], str) else "token ids"
    for at, value in enumerate(values):
        if not (isinstance(value, str) if isinstance(first, str) else _is_token_ids(value)):
            _wrong_type(f"input[{at}]", expected if at else _KINDS)
        _require_nonempty(value, f"input[{at}]")


def _is_token_ids(values: Any) -> TypeGuard[list[int]]:
    # A bool is an int to Python. Without a loop in Python: there may be 300,000.
    return isinstance(values, list) and set(map(type, values)) <= {int}


def _require_nonempty(value: str | list[Any], place: str) -> None:
    if not value:
        noun = "string" if isinstance(value, str) else "array"
        refuse(f"empty_{noun}", f"Invalid '{place}': input cannot be an empty {noun}.", place)


def _wrong_type(place: str, expected: str) -> None:
    refuse("invalid_type", f"Invalid type for '{place}': expected {expected}.", place)


_Inputs = str | list[str] | list[int] | list[list[int]]


class EmbeddingRequest(StrictModel):
    """The body of `POST /embeddings`."""

    model: str = Field(
        min_length=1,
        description="A base or fine-tuned model, or one of OpenAI's embedding models, whose names "
        "stand for the base model.",
    )
    input: Annotated[
        _Inputs,
        BeforeValidator(_validate_input, json_schema_input_type=_Inputs),
        Field(
            description="A text, its token ids, or up to 2048 of either. Ids are the local "
            "model's: have a client that counts with tiktoken send texts (LangChain: "
            "check_embedding_ctx_length=False)."
        ),
    ]
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Numbers, or base64 of little-endian 32-bit floats."
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="Keep only this many of the first numbers, scaled to length 1 again; at most "
        "as many as the model has.",
    )
    user: Annotated[
        str | None,
        Ignored("it names a person to the hosted service's checks against abuse"),
        Field(description="A name for the end user."),
    ] = None

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        """An entry for each text."""
        if isinstance(self.input, str):
            return [self.input]
        return [self.input] if _is_token_ids(self.input) else self.input  # type: ignore[return-value]


@router.post("")
async def create(
    request: Request,
    body: Annotated[EmbeddingRequest, Depends(json_body(EmbeddingRequest))],
    context: Context,
) -> Response:
    """Turn texts into vectors: the mean of the model's last hidden states, of length 1."""
    return await while_connected(request, _embed(body, context))


async def _embed(body: EmbeddingRequest, context: RequestContext) -> Response:
    disconnected = False

    def work() -> Response:
        with spelled(_FIELD_NAMES):
            embeddings = model.embed(body.inputs, lambda: disconnected, context.project)
        # Written in this thread too: it may be a million numbers.
        return Response(status_code=499) if embeddings is None else _reply(body, embeddings)

    model = await get_embedding_model(body.model, context)
    try:
        return await context.threads.embedding.run(context.project, work)
    finally:
        disconnected = True


def _reply(body: EmbeddingRequest, embeddings: Embeddings) -> Response:
    vectors = _truncate(embeddings.vectors, body.dimensions)
    # Not through the SDK's type: that one has no place for the base64 that the SDK requests. Vector
    # by vector, since the encoder holds Python's lock, and there may be a million numbers.
    data = [
        encode_json(
            {
                "object": "embedding",
                "index": index,
                "embedding": _encode_vector(vector, body.encoding_format),
            }
        )
        for index, vector in enumerate(vectors)
    ]
    envelope = encode_json(
        {
            "object": "list",
            "model": snapshot_name(body.model),
            "usage": {"prompt_tokens": embeddings.tokens, "total_tokens": embeddings.tokens},
        }
    )
    content = b'%s,"data":[%s]}' % (envelope.removesuffix(b"}"), b",".join(data))
    return Response(content, media_type="application/json")


def _truncate(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    if dimensions is None:
        return vectors
    most = vectors.shape[1]
    if dimensions > most:
        raise InvalidRequestError(
            f"Invalid value for 'dimensions' = {dimensions}. Must be less than or equal to {most}, "
            "the size of this model's vectors.",
            code="integer_above_max_value",
            param="dimensions",
        )
    kept = vectors[:, :dimensions]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = kept / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def _encode_vector(
    vector: NDArray[np.float32], form: Literal["float", "base64"]
) -> str | list[float]:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
