"""The request body of a fine-tuning job. All methods are validated; supervised is supported."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from emojitune.server.fine_tuning.grader_request import AnyGrader
from emojitune.server.http.json_bodies import Metadata, StrictModel, refuse


def _or_auto(number: Any) -> BeforeValidator:
    """A validator that accepts "auto", as None, in addition to `number`."""
    return BeforeValidator(
        lambda value: None if value == "auto" else value,
        json_schema_input_type=number | Literal["auto"] | None,
    )


_UpTo50 = Annotated[int, Field(ge=1, le=50)]
_UpTo256 = Annotated[int, Field(ge=1, le=256)]
_PositiveFloat = Annotated[float, Field(gt=0)]
_PositiveInt = Annotated[int, Field(ge=1)]
_Weight = Annotated[float, Field(gt=0, le=2)]
_ComputeFactor = Annotated[float, Field(gt=1e-05, le=10)]

_Epochs = Annotated[_UpTo50 | None, _or_auto(_UpTo50)]
_BatchSize = Annotated[_UpTo256 | None, _or_auto(_UpTo256)]
_Multiplier = Annotated[_PositiveFloat | None, _or_auto(_PositiveFloat)]
_Count = Annotated[_PositiveInt | None, _or_auto(_PositiveInt)]
_Beta = Annotated[_Weight | None, _or_auto(_Weight)]
_ComputeMultiplier = Annotated[_ComputeFactor | None, _or_auto(_ComputeFactor)]


class Hyperparameters(StrictModel):
    """Hyperparameters of every method: numbers or "auto", the default; here None is "auto"."""

    n_epochs: _Epochs = Field(None, description="Passes over the training file: 1 to 50, or auto.")
    batch_size: _BatchSize = Field(
        None, description="Examples of one optimizer step: 1 to 256, or auto."
    )
    learning_rate_multiplier: _Multiplier = Field(
        None, description="Multiplies the base model's own learning rate: above 0, or auto."
    )


class DPOHyperparameters(Hyperparameters):
    """Hyperparameters of preference learning."""

    beta: _Beta = Field(
        None,
        description="Weight of the penalty for diverging from the base model: up to 2, or auto.",
    )


class ReinforcementHyperparameters(Hyperparameters):
    """Hyperparameters of reinforcement learning."""

    reasoning_effort: Literal["default", "low", "medium", "high"] = Field(
        "default", description="The reasoning effort of a reasoning model."
    )
    compute_multiplier: _ComputeMultiplier = Field(
        None, description="Amount of exploration: above 0.00001 and up to 10, or auto."
    )
    eval_interval: _Count = Field(None, description="Steps between evaluations, or auto.")
    eval_samples: _Count = Field(None, description="Samples of one evaluation, or auto.")


class Supervised(StrictModel):
    """The configuration of supervised fine-tuning."""

    hyperparameters: Hyperparameters = Field(
        Hyperparameters(), description="The hyperparameters of the method."
    )


class DPO(StrictModel):
    """The configuration of preference learning."""

    hyperparameters: DPOHyperparameters = Field(
        DPOHyperparameters(), description="The hyperparameters of the method."
    )


class Reinforcement(StrictModel):
    """The configuration of reinforcement learning."""

    grader: AnyGrader = Field(description="The grader that scores replies.")
    hyperparameters: ReinforcementHyperparameters = Field(
        ReinforcementHyperparameters(), description="The hyperparameters of the method."
    )


class Method(StrictModel):
    """The method by name; the configurations of other methods are validated, then ignored."""

    type: Literal["supervised", "dpo", "reinforcement"] = Field(
        description="The method: supervised; dpo and reinforcement are refused."
    )
    supervised: Supervised = Field(Supervised(), description="The configuration of supervised.")
    dpo: DPO | None = Field(None, description="The configuration of dpo; ignored by supervised.")
    reinforcement: Reinforcement | None = Field(
        None, description="The configuration of reinforcement; ignored by supervised."
    )

    # After validation: an invalid request is reported first, as on the hosted API.
    @model_validator(mode="after")
    def _is_supported(self) -> "Method":
        if self.type == "reinforcement" and self.reinforcement is None:
            name = "method.reinforcement"
            refuse("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
        if self.type != "supervised":
            refuse(
                "unsupported_value",
                f"The method '{self.type}' isn't built here, so no job was made. "
                "The method 'supervised' is.",
                "method.type",
            )
        return self


class WandbSettings(StrictModel):
    """The run in Weights & Biases that gets the metrics."""

    project: str = Field(min_length=1, description="The project of the run.")
    name: str | None = Field(None, description="The run's name; without one, the job's id.")
    entity: str | None = Field(None, description="The team or user that the run belongs to.")
    tags: list[Annotated[str, StringConstraints(min_length=1, max_length=64)]] = Field(
        [], description="The run's tags, in addition to emojitune's own."
    )


class Integration(StrictModel):
    """Another service that gets the metrics of the training."""

    type: Literal["wandb"] = Field(description="Weights & Biases, the only integration there is.")
    wandb: WandbSettings = Field(
        description="The metrics are written into an offline run in the job's folder, if the "
        "wandb package is installed; else the job's events say that they are not."
    )

    def to_stored(self) -> dict[str, Any]:
        """Return the integration as the job object has it: with all keys."""
        return self.model_dump(mode="json")


class CreateJob(StrictModel):
    """The body of `POST /fine_tuning/jobs`."""

    model: str = Field(
        min_length=1, description="A base model, an alias of one, a fine-tuned model or checkpoint."
    )
    training_file: str = Field(
        min_length=1, description="The id of a file that was uploaded with purpose fine-tune."
    )
    hyperparameters: Hyperparameters = Field(
        Hyperparameters(), description="The older place for hyperparameters; those of `method` win."
    )
    suffix: str | None = Field(
        None, min_length=1, max_length=64, description="A part of the fine-tuned model's name."
    )
    validation_file: str | None = Field(
        None, min_length=1, description="The id of a file to evaluate on after each epoch."
    )
    integrations: list[Integration] | None = Field(
        None, max_length=5, description="Other services that get the metrics of the training."
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=2_147_483_647,
        description="The random seed: the same seed and data give the same adapter.",
    )
    method: Method = Field(Method(type="supervised"), description="The training method.")
    metadata: Metadata | None = Field(
        None, description="Up to 16 key-value pairs of your own, by which jobs can be listed."
    )

    @property
    def requested_hyperparameters(self) -> dict[str, int | float | str]:
        """The hyperparameters; those of `method`, the newer of the two places, win."""
        newer, older = self.method.supervised.hyperparameters, self.hyperparameters
        return {
            name: getattr(newer, name) or getattr(older, name) or "auto"
            for name in Hyperparameters.model_fields
        }
