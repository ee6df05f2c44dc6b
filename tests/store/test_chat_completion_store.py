import pytest

from emojitune.errors import NotFoundError
from emojitune.store.chat_completions import ChatCompletionStore, StoredChatCompletion
from emojitune.store.database import Database


@pytest.fixture
def completions(database: Database) -> ChatCompletionStore:
    return ChatCompletionStore(database, "default")


def completion(
    name: str, model: str = "m", metadata: dict[str, str] | None = None
) -> StoredChatCompletion:
    message = {"id": f"{name}-0", "role": "user", "content": "hi"}
    return StoredChatCompletion(name, 1, model, metadata, {"id": name}, [message])


def test_a_stored_completion_can_be_read(completions: ChatCompletionStore) -> None:
    completions.add(completion("a", metadata={"k": "v"}))
    assert completions.get("a") == completion("a", metadata={"k": "v"})


def test_lists_are_filtered_by_model_and_metadata_and_ordered(
    completions: ChatCompletionStore,
) -> None:
    completions.add(completion("a", metadata={"k": "v", "l": "w"}))
    completions.add(completion("b", "other", metadata={"k": "v"}))
    completions.add(completion("c"))

    def ids(**filters: object) -> list[str]:
        return [item.id for item in completions.list(**filters).items]

    assert ids() == ["a", "b", "c"]
    assert ids(order="desc") == ["c", "b", "a"]
    assert ids(after="a", limit=1) == ["b"]
    assert ids(model="other") == ["b"]
    assert ids(metadata={"k": "v"}) == ["a", "b"]
    assert ids(metadata={"k": "v", "l": "w"}) == ["a"]


def test_metadata_is_replaced_and_removed(completions: ChatCompletionStore) -> None:
    completions.add(completion("a", metadata={"k": "v"}))
    assert completions.update("a", {"x": "y"}).metadata == {"x": "y"}
    assert completions.update("a", None).metadata is None
    assert completions.get("a").completion == {"id": "a"}


def test_unknown_completions_are_not_found(completions: ChatCompletionStore) -> None:
    for call in (completions.get, completions.delete, lambda name: completions.update(name, {})):
        with pytest.raises(NotFoundError, match="'a'"):
            call("a")
