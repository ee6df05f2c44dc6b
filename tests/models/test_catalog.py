from pathlib import Path

import pytest

from emojitune.errors import NotFoundError
from emojitune.models.catalog import (
    CATALOG,
    HOSTED_MODELS,
    SMOLLM2_135M,
    FolderSource,
    HubSource,
    find_base,
    hosted_snapshot,
    resolve_base,
    stored_base,
)
from emojitune.settings import Settings

SETTINGS = Settings()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is also the path `org/name`, relative to the working folder."""
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("name", HOSTED_MODELS)
def test_a_hosted_name_is_an_alias_of_the_base_in_the_settings(name: str) -> None:
    assert resolve_base(name, SETTINGS) is SMOLLM2_135M
    other = resolve_base(name, Settings(base_model="org/name@v2"))
    assert other.source == HubSource("org/name", "v2")


@pytest.mark.parametrize("name", HOSTED_MODELS)
def test_the_snapshot_of_a_hosted_name_is_hosted_and_its_own_snapshot(name: str) -> None:
    snapshot = hosted_snapshot(name)
    assert snapshot in HOSTED_MODELS
    assert hosted_snapshot(snapshot) == snapshot


def test_gpt_35_turbo_resolves_to_its_last_snapshot() -> None:
    assert hosted_snapshot("gpt-3.5-turbo") == "gpt-3.5-turbo-0125"
    assert hosted_snapshot(SMOLLM2_135M.name) is None


def test_a_catalog_name_resolves_to_itself_whatever_the_settings_say() -> None:
    for name, model in CATALOG.items():
        assert model.name == name
        assert resolve_base(name, Settings(base_model="org/name")) is model


def test_larger_bases_have_short_names_too() -> None:
    base = resolve_base("smollm2-360m-instruct", SETTINGS)
    assert base.source == HubSource("HuggingFaceTB/SmolLM2-360M-Instruct", "main")


def test_the_documentation_names_every_base_of_the_catalog() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for name, base in CATALOG.items():
        assert f"| `{name}` " in page
        assert base.licence in page


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("org/name", HubSource("org/name", "main")),
        ("org/name-1.5B_it@v1.0", HubSource("org/name-1.5B_it", "v1.0")),
        ("org/name@refs/pr/1", HubSource("org/name", "refs/pr/1")),
    ],
)
def test_a_repository_id_is_a_base(name: str, source: HubSource) -> None:
    base = resolve_base(name, SETTINGS)
    assert (base.name, base.source) == (name, source)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "data", "no-such-model", "ft:gone:local::1"),
        *("../x", "./x", "~/x", "/etc/passwd", "a/b/c", "org/", "/name", "org\\name"),
        *("org/name@", "org/name@../../x", "org/name@v1@v2", "org/name\n", " org/name"),
        *("org/name@/etc/passwd", "org/name@a//b", "org/name@a/../b", "org/name@./a"),
        *("org/name@a/", "org/name@.git", "../name@a", "org/..@a", "org/name@a/.."),
    ],
)
def test_an_unknown_name_is_not_found(name: str) -> None:
    with pytest.raises(NotFoundError, match="does not exist") as error:
        resolve_base(name, SETTINGS)
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


def test_a_request_for_a_repository_reaches_no_folder_of_that_name(folder: Path) -> None:
    resolved = resolve_base("org/name", SETTINGS)
    assert resolved.source == HubSource("org/name", "main")
    assert stored_base(resolved.name) == resolved, "nor does its stored name"


def test_a_request_names_no_path(folder: Path) -> None:
    for name in (str(folder), "org", "./org/name", "org/../org/name"):
        with pytest.raises(NotFoundError):
            resolve_base(name, SETTINGS)


def test_a_folder_in_the_settings_serves_the_hosted_names(folder: Path) -> None:
    for reference in (str(folder), "org/name", "./org/name"):
        settings = Settings(base_model=reference)
        base = resolve_base("gpt-3.5-turbo", settings)
        assert base.source == FolderSource(folder)
        assert resolve_base(reference, settings) == base


def test_a_folder_is_found_again_from_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = find_base("org/name")
    monkeypatch.chdir(folder)
    assert stored_base(base.name) == base


def test_a_folder_may_begin_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_base("~/name").source == FolderSource(folder)


@pytest.mark.parametrize("reference", ["~nobody-of-this-name/x", "no-such-folder"])
def test_a_setting_that_names_no_model_is_not_found(reference: str) -> None:
    with pytest.raises(NotFoundError):
        resolve_base("gpt-3.5-turbo", Settings(base_model=reference))
