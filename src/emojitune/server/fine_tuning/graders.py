"""Graders: validate one, run one on a reply."""

from time import monotonic, perf_counter, sleep
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from openai.types.fine_tuning.alpha import GraderRunResponse, GraderValidateResponse
from pydantic import Field

from emojitune.evaluation.graders.graders import Grade, grade
from emojitune.server.context import Context, RequestContext
from emojitune.server.fine_tuning.grader_request import AnyGrader, Multi, build_grader
from emojitune.server.generation.streaming import while_connected
from emojitune.server.http.json_bodies import StrictModel, json_body
from emojitune.server.http.json_responses import json_response

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders")

_MAX_SAMPLE_LENGTH = 500_000  # characters; parsing it as JSON stops other threads for 40 ms
_SLICE_SECONDS = 0.002

_ERROR_FLAGS = (
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
_ERROR_DETAILS = (
    "python_grader_server_error_type",
    "python_grader_runtime_error_details",
    "model_grader_server_error_details",
)


class ValidateGrader(StrictModel):
    """The body of `POST /fine_tuning/alpha/graders/validate`."""

    grader: AnyGrader = Field(description="The grader to validate.")


class RunGrader(StrictModel):
    """The body of `POST /fine_tuning/alpha/graders/run`."""

    grader: AnyGrader = Field(description="The grader to run.")
    model_sample: str = Field(
        max_length=_MAX_SAMPLE_LENGTH, description="The reply to grade: `sample` in templates."
    )
    item: dict[str, Any] = Field({}, description="The data of the prompt: `item` in templates.")


class _Validated(GraderValidateResponse):
    # As it was sent: OpenAI's own type knows one of the three forms of a multi grader's `graders`.
    grader: Any


@router.post("/validate")
def validate(
    body: Annotated[ValidateGrader, Depends(json_body(ValidateGrader))],
) -> Response:
    """Check that a grader can be run here; returns the grader."""
    build_grader(body.grader)
    return json_response(_Validated(grader=body.grader.model_dump(exclude_unset=True)))


@router.post("/run")
async def run(
    request: Request,
    body: Annotated[RunGrader, Depends(json_body(RunGrader))],
    context: Context,
) -> Response:
    """Grade one reply; errors in a template or formula are reported in `metadata.errors`."""
    return await while_connected(request, _grade(body, context))


async def _grade(body: RunGrader, context: RequestContext) -> Response:
    pacer = _Pacer()

    def work() -> Response:
        grader = build_grader(body.grader)
        started = perf_counter()
        graded = grade(grader, body.model_sample, body.item, pacer.pause)
        return json_response(_run_object(body.grader, graded, perf_counter() - started))

    try:
        return await context.threads.grading.run(context.project, work)
    finally:
        pacer.cancel()


class _Cancelled(Exception):
    """The client has disconnected."""


class _Pacer:
    """Divides a thread's work into slices, so that threads that compute replies come between.

    The interpreter would take the lock from it after 5 ms only, at each of a reply's operations.
    """

    def __init__(self) -> None:
        self._cancelled = False
        self._slice_ends = monotonic() + _SLICE_SECONDS

    def pause(self) -> None:
        """Sleep at the end of a slice; raises `_Cancelled` after `cancel`."""
        if self._cancelled:
            raise _Cancelled
        if monotonic() > self._slice_ends:
            sleep(_SLICE_SECONDS)
            self._slice_ends = monotonic() + _SLICE_SECONDS

    def cancel(self) -> None:
        self._cancelled = True


def _run_object(grader: Any, graded: Grade, seconds: float) -> GraderRunResponse:
    # Without the aliases that a formula may use.
    names = grader.parts if isinstance(grader, Multi) else ()
    parts = {name: graded.sub_rewards[name] for name in names}
    return GraderRunResponse.model_validate(
        {
            "reward": graded.reward,
            "metadata": {
                "name": grader.name,
                "type": grader.type,
                "errors": {
                    **{flag: flag in graded.errors for flag in _ERROR_FLAGS},
                    **dict.fromkeys(_ERROR_DETAILS),
                },
                "execution_time": seconds,
                "scores": parts,
                "token_usage": None,
                "sampled_model_name": None,
            },
            "sub_rewards": parts,
            "model_grader_token_usage_per_model": {},
        }
    )
