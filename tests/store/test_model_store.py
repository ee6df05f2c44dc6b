import pytest

from emojitune.errors import NotFoundError
from emojitune.store.models import FineTunedModel, ModelStore

MODEL = FineTunedModel(
    name="ft:gpt-3.5-turbo-0125:local:emoji-v1:abcdefgh",
    created_at=1,
    job_id="ftjob-1",
    base="smollm2-135m-instruct",
    hosted_name="gpt-3.5-turbo-0125",
    adapter="abcdefgh",
    step=None,
)


def test_a_model_is_registered_once_listed_and_deleted(models: ModelStore) -> None:
    models.register(MODEL)
    models.register(MODEL)
    assert models.get(MODEL.name) == MODEL
    assert models.list() == [MODEL]
    models.delete(MODEL.name)
    assert models.list() == []


@pytest.mark.parametrize("method", ["get", "delete"])
def test_unknown_models_are_not_found_in_openais_words(models: ModelStore, method: str) -> None:
    with pytest.raises(NotFoundError, match="The model 'ft:x' does not exist") as caught:
        getattr(models, method)("ft:x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
