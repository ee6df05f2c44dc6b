import os
from pathlib import Path

import pytest

from emojitune.errors import ConfigurationError
from emojitune.server.edge.auth import server_key
from emojitune.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("EMOJITUNE_API_KEY", raising=False)
    return Settings(home=tmp_path / "home", cache=tmp_path / "cache")


def test_a_configured_key_is_used_and_not_written(settings: Settings) -> None:
    given = Settings(home=settings.home, cache=settings.cache, api_key="sk-mine")
    assert server_key(given) == "sk-mine"
    assert not settings.home.exists()


def test_a_key_is_created_once_and_private(settings: Settings) -> None:
    key = server_key(settings)
    assert key == server_key(settings)
    assert len(key) > 40
    assert [path.name for path in settings.home.iterdir()] == ["api_key"]
    if os.name == "posix":
        assert (settings.home / "api_key").stat().st_mode & 0o777 == 0o600
        assert settings.home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("written", ["", " \n"])
def test_an_empty_key_file_is_replaced(settings: Settings, written: str) -> None:
    settings.home.mkdir()
    (settings.home / "api_key").write_text(written)
    assert len(server_key(settings)) > 40


def test_a_stored_key_that_no_client_can_send_is_explained(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "api_key").write_text("schlüssel")
    with pytest.raises(ConfigurationError, match="remove the file") as caught:
        server_key(settings)
    assert "schl" not in caught.value.message
