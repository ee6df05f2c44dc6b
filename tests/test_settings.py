"""Settings as people write them in unit files, compose files and shells."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from emojitune.settings import Settings


def test_values_are_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOJITUNE_API_KEY", " sk-mine\n")
    monkeypatch.setenv("EMOJITUNE_PORT", " 8809 ")
    monkeypatch.setenv("EMOJITUNE_HOME", "/srv/emoji\n")
    settings = Settings()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "sk-mine"
    assert (settings.port, settings.home) == (8809, Path("/srv/emoji"))


@pytest.mark.parametrize("name", list(Settings.model_fields))
@pytest.mark.parametrize("blank", ["", " \n"])
def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch, name: str, blank: str) -> None:
    monkeypatch.delenv("EMOJITUNE_HOME")
    default = getattr(Settings(), name)
    monkeypatch.setenv(f"EMOJITUNE_{name.upper()}", blank)
    settings = Settings()
    assert getattr(settings, name) == default
    assert name not in settings.model_fields_set


@pytest.mark.parametrize("name", ["home", "cache", "tls_cert", "tls_key"])
def test_a_tilde_is_expanded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"EMOJITUNE_{name.upper()}", "~/emoji")
    assert getattr(Settings(), name) == Path.home() / "emoji"
    monkeypatch.setenv(f"EMOJITUNE_{name.upper()}", "~nobody-of-this-name/emoji")
    with pytest.raises(ValidationError, match="~nobody-of-this-name/emoji cannot be resolved"):
        Settings()


def test_an_address_may_have_the_brackets_of_a_url() -> None:
    assert Settings(host="[::1]").host == "::1"


@pytest.mark.parametrize("key", ["schlüssel", "sk-“mine”", "two words"])
def test_a_key_that_no_client_can_send_is_rejected_but_not_shown(key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(api_key=key)
    assert key not in str(caught.value)
    [error] = caught.value.errors()
    assert "visible ASCII characters only" in error["msg"]
    assert key not in error["msg"]
