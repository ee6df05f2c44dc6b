"""JSON Schemas of all responses of the API, self-written and reduced.

OpenAI's own document (3 MB of YAML) is not vendored: it is not ours, it moves every week, and no
JSON Schema library reads it as it stands (`nullable` beside `$ref`, boolean `exclusiveMinimum`,
`oneOf`s that overlap). So the objects that this API answers with are written down here, by hand,
from the reference: every key that the document requires, the type and the values of each known key,
and null exactly where the document, or the hosted service's recorded traffic, has null. Unknown
keys are allowed (`served_by`, `alternatives`): clients ignore them.

The strict SDK is no substitute: it accepts "12" as an integer and does not miss a nullable key.
"""

from collections.abc import Mapping
from typing import Any

import jsonschema

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
TIMESTAMP: Schema = {"type": "integer", "minimum": 0}
METADATA: Schema = {
    "type": ["object", "null"],
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def enum(*values: Any) -> Schema:
    return {"enum": list(values)}


def array_of(items: Schema, **extra: Any) -> Schema:
    return {"type": "array", "items": items, **extra}


def object_with(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def list_of(items: Schema, **extra: Schema) -> Schema:
    """A list object with the `extra` keys, all required."""
    return object_with({"object": enum("list"), "data": array_of(items), **extra})


def page_of(items: Schema, **extra: Schema) -> Schema:
    return list_of(items, has_more=BOOLEAN, **extra)


def page_with_ids(items: Schema) -> Schema:
    """A page with its first and last id, which may be null when it is empty."""
    return page_of(items, first_id=nullable(STRING), last_id=nullable(STRING))


DELETED = object_with(
    {
        "id": STRING,
        "object": enum(
            "file",
            "model",
            "chat.completion.deleted",
            "checkpoint.permission",
            "response",
            "response.deleted",
        ),
        "deleted": enum(True),
    }
)

ERROR = object_with(
    {
        "error": {
            **object_with(
                {
                    "message": STRING,
                    "type": STRING,
                    "param": nullable(STRING),
                    "code": nullable(STRING),
                }
            ),
            "additionalProperties": False,
        }
    }
)

FILE = object_with(
    {
        "id": {"type": "string", "pattern": "^file-"},
        "object": enum("file"),
        "bytes": COUNT,
        "created_at": TIMESTAMP,
        "filename": STRING,
        "purpose": enum(
            "assistants",
            "assistants_output",
            "batch",
            "batch_output",
            "fine-tune",
            "fine-tune-results",
            "vision",
            "user_data",
            "evals",  # taken on upload, though OpenAI's document forgets it here
        ),
        "status": enum("uploaded", "processed", "error"),
    },
    expires_at=nullable(TIMESTAMP),
    status_details=nullable(STRING),
)

UPLOAD = object_with(
    {
        "id": {"type": "string", "pattern": "^upload_"},
        "object": enum("upload"),
        "created_at": TIMESTAMP,
        "filename": STRING,
        "bytes": COUNT,
        "purpose": STRING,
        "status": enum("pending", "completed", "cancelled", "expired"),
        "expires_at": TIMESTAMP,
    },
    file=nullable(FILE),
)

UPLOAD_PART = object_with(
    {
        "id": {"type": "string", "pattern": "^part_"},
        "object": enum("upload.part"),
        "created_at": TIMESTAMP,
        "upload_id": {"type": "string", "pattern": "^upload_"},
    }
)

MODEL = object_with(
    {"id": STRING, "object": enum("model"), "created": TIMESTAMP, "owned_by": STRING},
    shutdown_date={"type": ["string", "null"], "pattern": r"^\d{4}-\d\d-\d\d$"},
)

AUTO = enum("auto")


def or_auto(schema: Schema) -> Schema:
    return {"anyOf": [AUTO, schema]}


_SUPERVISED = {
    "n_epochs": or_auto({"type": "integer", "minimum": 1, "maximum": 50}),
    "batch_size": or_auto({"type": "integer", "minimum": 1, "maximum": 256}),
    "learning_rate_multiplier": or_auto({"type": "number", "exclusiveMinimum": 0}),
}
HYPERPARAMETERS = object_with({}, **_SUPERVISED)

JOB = object_with(
    {
        "id": {"type": "string", "pattern": "^ftjob-"},
        "object": enum("fine_tuning.job"),
        "created_at": TIMESTAMP,
        "error": nullable(
            object_with({"code": STRING, "message": STRING, "param": nullable(STRING)})
        ),
        "fine_tuned_model": {"type": ["string", "null"], "pattern": "^ft:[^:]+:[^:]+:[^:]*:[^:]+$"},
        "finished_at": nullable(TIMESTAMP),
        "hyperparameters": HYPERPARAMETERS,
        "model": STRING,
        "organization_id": STRING,
        "result_files": array_of(STRING),
        # "paused" is in no enum of OpenAI's, and is what its /pause answers.
        "status": enum(
            "validating_files", "queued", "running", "succeeded", "failed", "cancelled", "paused"
        ),
        "trained_tokens": nullable(COUNT),
        "training_file": STRING,
        "validation_file": nullable(STRING),
        "seed": {"type": "integer", "minimum": 0, "maximum": 2_147_483_647},
    },
    integrations=nullable(
        array_of(
            object_with(
                {
                    "type": enum("wandb"),
                    "wandb": object_with(
                        {"project": STRING},
                        name=nullable(STRING),
                        entity=nullable(STRING),
                        tags=array_of(STRING),
                    ),
                }
            ),
            maxItems=5,
        )
    ),
    estimated_finish=nullable(TIMESTAMP),
    method=object_with(
        {"type": enum("supervised", "dpo", "reinforcement")},
        supervised=object_with({}, hyperparameters=HYPERPARAMETERS),
        dpo=object_with({}, hyperparameters=HYPERPARAMETERS),
        reinforcement=object_with({"grader": {"type": "object"}}, hyperparameters=HYPERPARAMETERS),
    ),
    metadata=METADATA,
)

EVENT = object_with(
    {
        "id": {"type": "string", "pattern": "^ft-?event-"},
        "object": enum("fine_tuning.job.event"),
        "created_at": TIMESTAMP,
        "level": enum("info", "warn", "error"),
        "message": STRING,
    },
    type=enum("message", "metrics"),
    data={"type": ["object", "null"]},
)

_METRICS = (
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)

CHECKPOINT = object_with(
    {
        "id": {"type": "string", "pattern": "^ftckpt_"},
        "object": enum("fine_tuning.job.checkpoint"),
        "created_at": TIMESTAMP,
        "fine_tuned_model_checkpoint": {"type": "string", "pattern": "^ft:"},
        "step_number": COUNT,
        "metrics": object_with({}, step=NUMBER, **dict.fromkeys(_METRICS, NUMBER)),
        "fine_tuning_job_id": {"type": "string", "pattern": "^ftjob-"},
    }
)

PERMISSION = object_with(
    {
        "id": {"type": "string", "pattern": "^cp_"},
        "object": enum("checkpoint.permission"),
        "created_at": TIMESTAMP,
        "project_id": STRING,
    }
)

_GRADER_FLAGS = (
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
)
_GRADER_TEXTS = (
    "python_grader_server_error_type",
    "python_grader_runtime_error_details",
    "model_grader_server_error_details",
)

GRADER_RUN = object_with(
    {
        "reward": NUMBER,
        "metadata": object_with(
            {
                "name": STRING,
                "type": STRING,
                "errors": object_with(
                    {
                        **dict.fromkeys(_GRADER_FLAGS, BOOLEAN),
                        **dict.fromkeys(_GRADER_TEXTS, nullable(STRING)),
                    }
                ),
                "execution_time": NUMBER,
                "scores": {"type": "object"},
                "token_usage": nullable(INTEGER),
                "sampled_model_name": nullable(STRING),
            }
        ),
        "sub_rewards": {"type": "object"},
        "model_grader_token_usage_per_model": {"type": "object"},
    }
)

GRADER_VALID = object_with({}, grader=object_with({"type": STRING}))

USAGE = object_with(
    {"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT},
    prompt_tokens_details=object_with({}, cached_tokens=COUNT, audio_tokens=COUNT),
    completion_tokens_details=object_with(
        {},
        reasoning_tokens=COUNT,
        audio_tokens=COUNT,
        accepted_prediction_tokens=COUNT,
        rejected_prediction_tokens=COUNT,
    ),
)

TIER = enum("auto", "default", "flex", "scale", "priority", "fast", None)
BYTE = {"type": "integer", "minimum": 0, "maximum": 255}
_LOGPROB = {"token": STRING, "logprob": NUMBER, "bytes": nullable(array_of(BYTE))}
TOKEN_LOGPROB = object_with({**_LOGPROB, "top_logprobs": array_of(object_with(_LOGPROB))})
LOGPROBS = nullable(
    object_with(
        {
            "content": nullable(array_of(TOKEN_LOGPROB)),
            "refusal": nullable(array_of(TOKEN_LOGPROB)),
        }
    )
)

_CALL = {"name": STRING, "arguments": STRING}
TOOL_CALL = {
    "anyOf": [
        object_with({"id": STRING, "type": enum("function"), "function": object_with(_CALL)}),
        object_with(
            {"id": STRING, "type": enum("custom"), "custom": object_with({"name": STRING})}
        ),
    ]
}

_MESSAGE: dict[str, Any] = {
    "tool_calls": array_of(TOOL_CALL, minItems=1),
    "annotations": array_of({"type": "object"}),
    "function_call": object_with(_CALL),
    "audio": {"type": "null"},
}
MESSAGE = object_with(
    {"role": enum("assistant"), "content": nullable(STRING), "refusal": nullable(STRING)},
    **_MESSAGE,
)

FINISH = ("stop", "length", "tool_calls", "content_filter", "function_call")

COMPLETION = object_with(
    {
        "id": {"type": "string", "pattern": "^chatcmpl-"},
        "object": enum("chat.completion"),
        "created": TIMESTAMP,
        "model": STRING,
        "choices": array_of(
            object_with(
                {
                    "index": COUNT,
                    "finish_reason": enum(*FINISH),
                    "message": MESSAGE,
                    "logprobs": LOGPROBS,
                }
            ),
            minItems=1,
        ),
    },
    usage=USAGE,
    metadata=METADATA,
    service_tier=TIER,
    system_fingerprint=STRING,
    moderation={"type": "null"},
)

CHUNK = object_with(
    {
        "id": {"type": "string", "pattern": "^chatcmpl-"},
        "object": enum("chat.completion.chunk"),
        "created": TIMESTAMP,
        "model": STRING,
        "choices": array_of(
            object_with(
                {
                    "index": COUNT,
                    "finish_reason": enum(*FINISH, None),
                    "delta": object_with(
                        {},
                        role=enum("developer", "system", "user", "assistant", "tool"),
                        content=nullable(STRING),
                        refusal=nullable(STRING),
                        tool_calls=array_of(
                            object_with({"index": COUNT}, id=STRING, type=enum("function"))
                        ),
                        function_call=object_with({}, name=STRING, arguments=STRING),
                    ),
                },
                logprobs=LOGPROBS,
            )
        ),
    },
    usage=nullable(USAGE),
    service_tier=TIER,
    system_fingerprint=STRING,
    moderation={"type": "null"},
    obfuscation=STRING,
)

# Document and SDK say that each is the assistant's; those that were sent have their own role.
STORED_MESSAGE = object_with(
    {
        "id": STRING,
        "role": enum("system", "developer", "user", "assistant", "tool", "function"),
        "content": nullable({"anyOf": [STRING, {"type": "array"}]}),
        "refusal": nullable(STRING),
    },
    **_MESSAGE,
)

RESPONSE_USAGE = object_with(
    {
        "input_tokens": COUNT,
        "input_tokens_details": object_with({"cached_tokens": COUNT, "cache_write_tokens": COUNT}),
        "output_tokens": COUNT,
        "output_tokens_details": object_with({"reasoning_tokens": COUNT}),
        "total_tokens": COUNT,
    }
)

OUTPUT_TEXT = object_with(
    {
        "type": enum("output_text"),
        "text": STRING,
        "annotations": {"type": "array"},
        "logprobs": {"type": "array"},
    }
)
OUTPUT_PART = {
    "anyOf": [OUTPUT_TEXT, object_with({"type": enum("refusal"), "refusal": STRING})],
}
PROGRESS = enum("in_progress", "completed", "incomplete")
OUTPUT_ITEM = {
    "anyOf": [
        object_with(
            {
                "id": STRING,
                "type": enum("message"),
                "role": enum("assistant"),
                "status": PROGRESS,
                "content": array_of(OUTPUT_PART),
            }
        ),
        object_with(
            {
                "type": enum("function_call"),
                "call_id": STRING,
                "name": STRING,
                "arguments": STRING,
            },
            id=STRING,
            status=PROGRESS,
        ),
    ]
}
INPUT_ITEM = object_with({"type": STRING}, id=STRING)

RESPONSE = object_with(
    {
        "id": {"type": "string", "pattern": "^resp_"},
        "object": enum("response"),
        "created_at": NUMBER,
        "error": nullable(object_with({"code": STRING, "message": STRING})),
        "incomplete_details": nullable(
            object_with({}, reason=enum("max_output_tokens", "content_filter"))
        ),
        "instructions": nullable({"anyOf": [STRING, {"type": "array"}]}),
        "metadata": METADATA,
        "model": STRING,
        "output": array_of(OUTPUT_ITEM),
        "parallel_tool_calls": BOOLEAN,
        "temperature": nullable({"type": "number", "minimum": 0, "maximum": 2}),
        "tool_choice": {"type": ["string", "object"]},
        "tools": array_of({"type": "object"}),
        "top_p": nullable({"type": "number", "minimum": 0, "maximum": 1}),
    },
    status=enum("completed", "failed", "in_progress", "cancelled", "queued", "incomplete"),
    completed_at=nullable(NUMBER),
    usage=RESPONSE_USAGE,
    text=object_with({}, format=object_with({"type": STRING})),
    top_logprobs=nullable(COUNT),
    user=STRING,
    safety_identifier=nullable(STRING),
    prompt_cache_key=nullable(STRING),
    prompt_cache_retention=enum("in_memory", "24h", None),
    previous_response_id=nullable(STRING),
    background=nullable(BOOLEAN),
    max_tool_calls=nullable(COUNT),
    max_output_tokens=nullable(COUNT),
    service_tier=enum("auto", "default", "flex", "scale", "priority", "fast", "ultrafast", None),
    truncation=enum("auto", "disabled", None),
    reasoning=nullable({"type": "object"}),
    output_text=nullable(STRING),
    prompt=nullable({"type": "object"}),
    conversation=nullable({"type": "object"}),
    moderation={"type": "null"},
)

_EVENT: dict[str, Schema] = {"type": STRING, "sequence_number": COUNT}
_PART_EVENT: dict[str, Schema] = {
    **_EVENT,
    "item_id": STRING,
    "output_index": COUNT,
    "content_index": COUNT,
}
_ITEM_EVENT: dict[str, Schema] = {**_EVENT, "output_index": COUNT, "item": OUTPUT_ITEM}
_CALL_EVENT: dict[str, Schema] = {**_EVENT, "item_id": STRING, "output_index": COUNT}
RESPONSE_EVENTS: dict[str, Schema] = {
    **{
        f"response.{name}": object_with({**_EVENT, "response": RESPONSE})
        for name in ("created", "in_progress", "queued", "completed", "incomplete", "failed")
    },
    "response.output_item.added": object_with(_ITEM_EVENT),
    "response.output_item.done": object_with(_ITEM_EVENT),
    "response.content_part.added": object_with({**_PART_EVENT, "part": OUTPUT_PART}),
    "response.content_part.done": object_with({**_PART_EVENT, "part": OUTPUT_PART}),
    "response.output_text.delta": object_with(
        {**_PART_EVENT, "delta": STRING, "logprobs": {"type": "array"}}
    ),
    "response.output_text.done": object_with(
        {**_PART_EVENT, "text": STRING, "logprobs": {"type": "array"}}
    ),
    "response.function_call_arguments.delta": object_with({**_CALL_EVENT, "delta": STRING}),
    "response.function_call_arguments.done": object_with(
        {**_CALL_EVENT, "arguments": STRING, "name": STRING}
    ),
    "error": object_with(
        {**_EVENT, "message": STRING, "code": nullable(STRING), "param": nullable(STRING)},
    ),
}

BATCH = object_with(
    {
        "id": {"type": "string", "pattern": "^batch_"},
        "object": enum("batch"),
        "endpoint": {"type": "string", "pattern": "^/v1/"},
        "input_file_id": STRING,
        "completion_window": STRING,
        "status": enum(
            "validating",
            "failed",
            "in_progress",
            "finalizing",
            "completed",
            "expired",
            "cancelling",
            "cancelled",
        ),
        "created_at": TIMESTAMP,
    },
    errors=nullable(
        object_with(
            {},
            object=enum("list"),
            data=array_of(
                object_with(
                    {},
                    code=STRING,
                    message=STRING,
                    param=nullable(STRING),
                    line=nullable(INTEGER),
                )
            ),
        )
    ),
    request_counts=nullable(object_with({"total": COUNT, "completed": COUNT, "failed": COUNT})),
    model=nullable(STRING),
    output_file_id=nullable(STRING),
    error_file_id=nullable(STRING),
    metadata=METADATA,
    **{
        f"{moment}_at": nullable(TIMESTAMP)
        for moment in (
            "in_progress",
            "expires",
            "finalizing",
            "completed",
            "failed",
            "expired",
            "cancelling",
            "cancelled",
        )
    },
)

EMBEDDING = object_with(
    {
        "object": enum("embedding"),
        "index": COUNT,
        # Base64 is requested by the official clients, and missing in the document.
        "embedding": {"anyOf": [array_of(NUMBER, minItems=1), STRING]},
    }
)
EMBEDDINGS = list_of(
    EMBEDDING, model=STRING, usage=object_with({"prompt_tokens": COUNT, "total_tokens": COUNT})
)

OBJECTS: dict[str, Schema] = {
    "file": FILE,
    "upload": UPLOAD,
    "upload.part": UPLOAD_PART,
    "model": MODEL,
    "fine_tuning.job": JOB,
    "fine_tuning.job.event": EVENT,
    "fine_tuning.job.checkpoint": CHECKPOINT,
    "checkpoint.permission": PERMISSION,
    "chat.completion": COMPLETION,
    "chat.completion.chunk": CHUNK,
    "response": RESPONSE,
    "batch": BATCH,
    "embedding": EMBEDDING,
}

# By the end of the request's path: the items of a list, which may be empty, and its pagination.
LISTS: dict[str, Schema] = {
    "/files": page_with_ids(FILE),
    "/models": list_of(MODEL),
    "/fine_tuning/jobs": page_of(JOB),
    "/events": page_of(EVENT),
    "/checkpoints": page_with_ids(CHECKPOINT),
    "/permissions": page_with_ids(PERMISSION),
    "/chat/completions": page_with_ids(COMPLETION),
    "/messages": page_with_ids(STORED_MESSAGE),
    "/batches": page_of(BATCH),
    "/input_items": page_with_ids(INPUT_ITEM),
    "/embeddings": EMBEDDINGS,
}
PLAIN: dict[str, Schema] = {
    "/graders/run": GRADER_RUN,
    "/graders/validate": GRADER_VALID,
    "/responses/input_tokens": object_with(
        {"object": enum("response.input_tokens"), "input_tokens": COUNT}
    ),
}


def schema_of(reply: Mapping[str, Any], path: str) -> Schema:
    """The schema of a response to a request for `path`.

    Raises:
        LookupError: Nobody has written down what this is.
    """
    if "error" in reply and len(reply) == 1:
        return ERROR
    kind = reply.get("object")
    if reply.get("deleted") is True:
        return DELETED
    if kind in OBJECTS:
        return OBJECTS[kind]
    if reply.get("type") in RESPONSE_EVENTS:
        return RESPONSE_EVENTS[reply["type"]]
    table = LISTS if kind == "list" else PLAIN
    for end, schema in table.items():
        if path.endswith(end):
            return schema
    raise LookupError(f"schemas.py has no schema for the reply to {path}: {str(reply)[:200]}")


def check(reply: Mapping[str, Any], path: str) -> None:
    """Compare a raw reply with its schema.

    Raises:
        AssertionError: It differs; every difference is named.
    """
    validator = jsonschema.Draft202012Validator(schema_of(reply, path))
    errors = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(reply)]
    assert not errors, f"the reply to {path}: " + "; ".join(errors)
    _check_integers(reply, path)


def _check_integers(value: Any, path: str) -> None:
    """JSON Schema takes 12.0 for an integer; not every client does."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            a_time = name == "created" or name.endswith(("_at", "_tokens"))
            # The one object whose times are fractions by the document.
            if a_time and value.get("object") != "response":
                assert not isinstance(inner, float), f"the reply to {path}: {name} is {inner}"
            _check_integers(inner, path)
    elif isinstance(value, list):
        for inner in value:
            _check_integers(inner, path)
