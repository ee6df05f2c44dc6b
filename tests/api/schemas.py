"""What each reply of the API is as raw JSON: JSON Schemas, self-written and reduced.

OpenAI's own document (3 MB of YAML) is not vendored: it is not ours, it moves every week, and no
JSON Schema library reads it as it stands (`nullable` beside `$ref`, boolean `exclusiveMinimum`,
`oneOf`s that overlap). So the objects that this API answers with are written down here, by hand,
from the reference: every key that the document requires, the type and the values of each known key,
and null exactly where the document, or the hosted service's recorded traffic, has null. Keys
that are not known here may follow (`served_by`, `alternatives`): clients pass over them.

The strict SDK is no substitute: it takes "12" for an integer and misses no nullable key.
"""

from collections.abc import Mapping
from typing import Any

import jsonschema

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
TRUTH: Schema = {"type": "boolean"}
TIME: Schema = {"type": "integer", "minimum": 0}
METADATA: Schema = {
    "type": ["object", "null"],
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def one_of(*values: Any) -> Schema:
    return {"enum": list(values)}


def an_array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def an_object(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def a_list(items: Schema, **more: Schema) -> Schema:
    """A list in which all of `more` stands as well."""
    return an_object({"object": one_of("list"), "data": an_array(items), **more})


def a_page(items: Schema, **more: Schema) -> Schema:
    return a_list(items, has_more=TRUTH, **more)


def with_ends(items: Schema) -> Schema:
    """A page that says its first and its last id; both are null when it is empty."""
    return a_page(items, first_id=or_null(TEXT), last_id=or_null(TEXT))


DELETED = an_object(
    {
        "id": TEXT,
        "object": one_of(
            "file",
            "model",
            "chat.completion.deleted",
            "checkpoint.permission",
            "response",
            "response.deleted",
        ),
        "deleted": one_of(True),
    }
)

ERROR = an_object(
    {
        "error": {
            **an_object(
                {"message": TEXT, "type": TEXT, "param": or_null(TEXT), "code": or_null(TEXT)}
            ),
            "additionalProperties": False,
        }
    }
)

FILE = an_object(
    {
        "id": {"type": "string", "pattern": "^file-"},
        "object": one_of("file"),
        "bytes": COUNT,
        "created_at": TIME,
        "filename": TEXT,
        "purpose": one_of(
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
        "status": one_of("uploaded", "processed", "error"),
    },
    expires_at=or_null(TIME),
    status_details=or_null(TEXT),
)

UPLOAD = an_object(
    {
        "id": {"type": "string", "pattern": "^upload_"},
        "object": one_of("upload"),
        "created_at": TIME,
        "filename": TEXT,
        "bytes": COUNT,
        "purpose": TEXT,
        "status": one_of("pending", "completed", "cancelled", "expired"),
        "expires_at": TIME,
    },
    file=or_null(FILE),
)

UPLOAD_PART = an_object(
    {
        "id": {"type": "string", "pattern": "^part_"},
        "object": one_of("upload.part"),
        "created_at": TIME,
        "upload_id": {"type": "string", "pattern": "^upload_"},
    }
)

MODEL = an_object(
    {"id": TEXT, "object": one_of("model"), "created": TIME, "owned_by": TEXT},
    shutdown_date={"type": ["string", "null"], "pattern": r"^\d{4}-\d\d-\d\d$"},
)

AUTO = one_of("auto")


def auto_or(schema: Schema) -> Schema:
    return {"anyOf": [AUTO, schema]}


BASIC = {
    "n_epochs": auto_or({"type": "integer", "minimum": 1, "maximum": 50}),
    "batch_size": auto_or({"type": "integer", "minimum": 1, "maximum": 256}),
    "learning_rate_multiplier": auto_or({"type": "number", "exclusiveMinimum": 0}),
}
HYPERPARAMETERS = an_object({}, **BASIC)

JOB = an_object(
    {
        "id": {"type": "string", "pattern": "^ftjob-"},
        "object": one_of("fine_tuning.job"),
        "created_at": TIME,
        "error": or_null(an_object({"code": TEXT, "message": TEXT, "param": or_null(TEXT)})),
        "fine_tuned_model": {"type": ["string", "null"], "pattern": "^ft:[^:]+:[^:]+:[^:]*:[^:]+$"},
        "finished_at": or_null(TIME),
        "hyperparameters": HYPERPARAMETERS,
        "model": TEXT,
        "organization_id": TEXT,
        "result_files": an_array(TEXT),
        # "paused" is in no enum of OpenAI's, and is what its /pause answers.
        "status": one_of(
            "validating_files", "queued", "running", "succeeded", "failed", "cancelled", "paused"
        ),
        "trained_tokens": or_null(COUNT),
        "training_file": TEXT,
        "validation_file": or_null(TEXT),
        "seed": {"type": "integer", "minimum": 0, "maximum": 2_147_483_647},
    },
    integrations=or_null(
        an_array(
            an_object(
                {
                    "type": one_of("wandb"),
                    "wandb": an_object(
                        {"project": TEXT},
                        name=or_null(TEXT),
                        entity=or_null(TEXT),
                        tags=an_array(TEXT),
                    ),
                }
            ),
            maxItems=5,
        )
    ),
    estimated_finish=or_null(TIME),
    method=an_object(
        {"type": one_of("supervised", "dpo", "reinforcement")},
        supervised=an_object({}, hyperparameters=HYPERPARAMETERS),
        dpo=an_object({}, hyperparameters=HYPERPARAMETERS),
        reinforcement=an_object({"grader": {"type": "object"}}, hyperparameters=HYPERPARAMETERS),
    ),
    metadata=METADATA,
)

EVENT = an_object(
    {
        "id": {"type": "string", "pattern": "^ft-?event-"},
        "object": one_of("fine_tuning.job.event"),
        "created_at": TIME,
        "level": one_of("info", "warn", "error"),
        "message": TEXT,
    },
    type=one_of("message", "metrics"),
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

CHECKPOINT = an_object(
    {
        "id": {"type": "string", "pattern": "^ftckpt_"},
        "object": one_of("fine_tuning.job.checkpoint"),
        "created_at": TIME,
        "fine_tuned_model_checkpoint": {"type": "string", "pattern": "^ft:"},
        "step_number": COUNT,
        "metrics": an_object({}, step=NUMBER, **dict.fromkeys(_METRICS, NUMBER)),
        "fine_tuning_job_id": {"type": "string", "pattern": "^ftjob-"},
    }
)

PERMISSION = an_object(
    {
        "id": {"type": "string", "pattern": "^cp_"},
        "object": one_of("checkpoint.permission"),
        "created_at": TIME,
        "project_id": TEXT,
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

GRADER_RUN = an_object(
    {
        "reward": NUMBER,
        "metadata": an_object(
            {
                "name": TEXT,
                "type": TEXT,
                "errors": an_object(
                    {
                        **dict.fromkeys(_GRADER_FLAGS, TRUTH),
                        **dict.fromkeys(_GRADER_TEXTS, or_null(TEXT)),
                    }
                ),
                "execution_time": NUMBER,
                "scores": {"type": "object"},
                "token_usage": or_null(WHOLE),
                "sampled_model_name": or_null(TEXT),
            }
        ),
        "sub_rewards": {"type": "object"},
        "model_grader_token_usage_per_model": {"type": "object"},
    }
)

GRADER_VALID = an_object({}, grader=an_object({"type": TEXT}))

USAGE = an_object(
    {"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT},
    prompt_tokens_details=an_object({}, cached_tokens=COUNT, audio_tokens=COUNT),
    completion_tokens_details=an_object(
        {},
        reasoning_tokens=COUNT,
        audio_tokens=COUNT,
        accepted_prediction_tokens=COUNT,
        rejected_prediction_tokens=COUNT,
    ),
)

TIER = one_of("auto", "default", "flex", "scale", "priority", "fast", None)
BYTE = {"type": "integer", "minimum": 0, "maximum": 255}
_LOGPROB = {"token": TEXT, "logprob": NUMBER, "bytes": or_null(an_array(BYTE))}
TOKEN_LOGPROB = an_object({**_LOGPROB, "top_logprobs": an_array(an_object(_LOGPROB))})
LOGPROBS = or_null(
    an_object(
        {
            "content": or_null(an_array(TOKEN_LOGPROB)),
            "refusal": or_null(an_array(TOKEN_LOGPROB)),
        }
    )
)

_CALL = {"name": TEXT, "arguments": TEXT}
TOOL_CALL = {
    "anyOf": [
        an_object({"id": TEXT, "type": one_of("function"), "function": an_object(_CALL)}),
        an_object({"id": TEXT, "type": one_of("custom"), "custom": an_object({"name": TEXT})}),
    ]
}

_MESSAGE: dict[str, Any] = {
    "tool_calls": an_array(TOOL_CALL, minItems=1),
    "annotations": an_array({"type": "object"}),
    "function_call": an_object(_CALL),
    "audio": {"type": "null"},
}
MESSAGE = an_object(
    {"role": one_of("assistant"), "content": or_null(TEXT), "refusal": or_null(TEXT)}, **_MESSAGE
)

FINISH = ("stop", "length", "tool_calls", "content_filter", "function_call")

COMPLETION = an_object(
    {
        "id": {"type": "string", "pattern": "^chatcmpl-"},
        "object": one_of("chat.completion"),
        "created": TIME,
        "model": TEXT,
        "choices": an_array(
            an_object(
                {
                    "index": COUNT,
                    "finish_reason": one_of(*FINISH),
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
    system_fingerprint=TEXT,
    moderation={"type": "null"},
)

CHUNK = an_object(
    {
        "id": {"type": "string", "pattern": "^chatcmpl-"},
        "object": one_of("chat.completion.chunk"),
        "created": TIME,
        "model": TEXT,
        "choices": an_array(
            an_object(
                {
                    "index": COUNT,
                    "finish_reason": one_of(*FINISH, None),
                    "delta": an_object(
                        {},
                        role=one_of("developer", "system", "user", "assistant", "tool"),
                        content=or_null(TEXT),
                        refusal=or_null(TEXT),
                        tool_calls=an_array(
                            an_object({"index": COUNT}, id=TEXT, type=one_of("function"))
                        ),
                        function_call=an_object({}, name=TEXT, arguments=TEXT),
                    ),
                },
                logprobs=LOGPROBS,
            )
        ),
    },
    usage=or_null(USAGE),
    service_tier=TIER,
    system_fingerprint=TEXT,
    moderation={"type": "null"},
    obfuscation=TEXT,
)

# Document and SDK say that each is the assistant's; those that were sent have their own role.
STORED_MESSAGE = an_object(
    {
        "id": TEXT,
        "role": one_of("system", "developer", "user", "assistant", "tool", "function"),
        "content": or_null({"anyOf": [TEXT, {"type": "array"}]}),
        "refusal": or_null(TEXT),
    },
    **_MESSAGE,
)

RESPONSE_USAGE = an_object(
    {
        "input_tokens": COUNT,
        "input_tokens_details": an_object({"cached_tokens": COUNT, "cache_write_tokens": COUNT}),
        "output_tokens": COUNT,
        "output_tokens_details": an_object({"reasoning_tokens": COUNT}),
        "total_tokens": COUNT,
    }
)

OUTPUT_TEXT = an_object(
    {
        "type": one_of("output_text"),
        "text": TEXT,
        "annotations": {"type": "array"},
        "logprobs": {"type": "array"},
    }
)
OUTPUT_PART = {
    "anyOf": [OUTPUT_TEXT, an_object({"type": one_of("refusal"), "refusal": TEXT})],
}
PROGRESS = one_of("in_progress", "completed", "incomplete")
OUTPUT_ITEM = {
    "anyOf": [
        an_object(
            {
                "id": TEXT,
                "type": one_of("message"),
                "role": one_of("assistant"),
                "status": PROGRESS,
                "content": an_array(OUTPUT_PART),
            }
        ),
        an_object(
            {
                "type": one_of("function_call"),
                "call_id": TEXT,
                "name": TEXT,
                "arguments": TEXT,
            },
            id=TEXT,
            status=PROGRESS,
        ),
    ]
}
INPUT_ITEM = an_object({"type": TEXT}, id=TEXT)

RESPONSE = an_object(
    {
        "id": {"type": "string", "pattern": "^resp_"},
        "object": one_of("response"),
        "created_at": NUMBER,
        "error": or_null(an_object({"code": TEXT, "message": TEXT})),
        "incomplete_details": or_null(
            an_object({}, reason=one_of("max_output_tokens", "content_filter"))
        ),
        "instructions": or_null({"anyOf": [TEXT, {"type": "array"}]}),
        "metadata": METADATA,
        "model": TEXT,
        "output": an_array(OUTPUT_ITEM),
        "parallel_tool_calls": TRUTH,
        "temperature": or_null({"type": "number", "minimum": 0, "maximum": 2}),
        "tool_choice": {"type": ["string", "object"]},
        "tools": an_array({"type": "object"}),
        "top_p": or_null({"type": "number", "minimum": 0, "maximum": 1}),
    },
    status=one_of("completed", "failed", "in_progress", "cancelled", "queued", "incomplete"),
    completed_at=or_null(NUMBER),
    usage=RESPONSE_USAGE,
    text=an_object({}, format=an_object({"type": TEXT})),
    top_logprobs=or_null(COUNT),
    user=TEXT,
    safety_identifier=or_null(TEXT),
    prompt_cache_key=or_null(TEXT),
    prompt_cache_retention=one_of("in_memory", "24h", None),
    previous_response_id=or_null(TEXT),
    background=or_null(TRUTH),
    max_tool_calls=or_null(COUNT),
    max_output_tokens=or_null(COUNT),
    service_tier=one_of("auto", "default", "flex", "scale", "priority", "fast", "ultrafast", None),
    truncation=one_of("auto", "disabled", None),
    reasoning=or_null({"type": "object"}),
    output_text=or_null(TEXT),
    prompt=or_null({"type": "object"}),
    conversation=or_null({"type": "object"}),
    moderation={"type": "null"},
)

_STEP: dict[str, Schema] = {"type": TEXT, "sequence_number": COUNT}
_OF_PART: dict[str, Schema] = {
    **_STEP,
    "item_id": TEXT,
    "output_index": COUNT,
    "content_index": COUNT,
}
_OF_ITEM: dict[str, Schema] = {**_STEP, "output_index": COUNT, "item": OUTPUT_ITEM}
_OF_CALL: dict[str, Schema] = {**_STEP, "item_id": TEXT, "output_index": COUNT}
RESPONSE_EVENTS: dict[str, Schema] = {
    **{
        f"response.{name}": an_object({**_STEP, "response": RESPONSE})
        for name in ("created", "in_progress", "queued", "completed", "incomplete", "failed")
    },
    "response.output_item.added": an_object(_OF_ITEM),
    "response.output_item.done": an_object(_OF_ITEM),
    "response.content_part.added": an_object({**_OF_PART, "part": OUTPUT_PART}),
    "response.content_part.done": an_object({**_OF_PART, "part": OUTPUT_PART}),
    "response.output_text.delta": an_object(
        {**_OF_PART, "delta": TEXT, "logprobs": {"type": "array"}}
    ),
    "response.output_text.done": an_object(
        {**_OF_PART, "text": TEXT, "logprobs": {"type": "array"}}
    ),
    "response.function_call_arguments.delta": an_object({**_OF_CALL, "delta": TEXT}),
    "response.function_call_arguments.done": an_object(
        {**_OF_CALL, "arguments": TEXT, "name": TEXT}
    ),
    "error": an_object(
        {**_STEP, "message": TEXT, "code": or_null(TEXT), "param": or_null(TEXT)},
    ),
}

BATCH = an_object(
    {
        "id": {"type": "string", "pattern": "^batch_"},
        "object": one_of("batch"),
        "endpoint": {"type": "string", "pattern": "^/v1/"},
        "input_file_id": TEXT,
        "completion_window": TEXT,
        "status": one_of(
            "validating",
            "failed",
            "in_progress",
            "finalizing",
            "completed",
            "expired",
            "cancelling",
            "cancelled",
        ),
        "created_at": TIME,
    },
    errors=or_null(
        an_object(
            {},
            object=one_of("list"),
            data=an_array(
                an_object(
                    {},
                    code=TEXT,
                    message=TEXT,
                    param=or_null(TEXT),
                    line=or_null(WHOLE),
                )
            ),
        )
    ),
    request_counts=or_null(an_object({"total": COUNT, "completed": COUNT, "failed": COUNT})),
    model=or_null(TEXT),
    output_file_id=or_null(TEXT),
    error_file_id=or_null(TEXT),
    metadata=METADATA,
    **{
        f"{moment}_at": or_null(TIME)
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

EMBEDDING = an_object(
    {
        "object": one_of("embedding"),
        "index": COUNT,
        # Base64 is what the official clients ask for, and what the document has no word for.
        "embedding": {"anyOf": [an_array(NUMBER, minItems=1), TEXT]},
    }
)
EMBEDDINGS = a_list(
    EMBEDDING, model=TEXT, usage=an_object({"prompt_tokens": COUNT, "total_tokens": COUNT})
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

# By the end of the path that was asked: what a list holds, which may be empty, and how it is paged.
LISTS: dict[str, Schema] = {
    "/files": with_ends(FILE),
    "/models": a_list(MODEL),
    "/fine_tuning/jobs": a_page(JOB),
    "/events": a_page(EVENT),
    "/checkpoints": with_ends(CHECKPOINT),
    "/permissions": with_ends(PERMISSION),
    "/chat/completions": with_ends(COMPLETION),
    "/messages": with_ends(STORED_MESSAGE),
    "/batches": a_page(BATCH),
    "/input_items": with_ends(INPUT_ITEM),
    "/embeddings": EMBEDDINGS,
}
PLAIN: dict[str, Schema] = {
    "/graders/run": GRADER_RUN,
    "/graders/validate": GRADER_VALID,
    "/responses/input_tokens": an_object(
        {"object": one_of("response.input_tokens"), "input_tokens": COUNT}
    ),
}


def schema_of(reply: Mapping[str, Any], path: str) -> Schema:
    """The schema of a whole reply to a request for `path`.

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
    _check_whole_numbers(reply, path)


def _check_whole_numbers(value: Any, path: str) -> None:
    """JSON Schema takes 12.0 for an integer; not every client does."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            a_time = name == "created" or name.endswith(("_at", "_tokens"))
            # The one object whose times are fractions by the document.
            if a_time and value.get("object") != "response":
                assert not isinstance(inner, float), f"the reply to {path}: {name} is {inner}"
            _check_whole_numbers(inner, path)
    elif isinstance(value, list):
        for inner in value:
            _check_whole_numbers(inner, path)
