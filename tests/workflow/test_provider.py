"""Connections to OpenAI, a URL, a running server, and one that must be started."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from fake_api import FakeApi
from permissions import mode

from emojitune.errors import ConfigurationError, ProviderError
from emojitune.settings import Settings
from emojitune.workflow import provider
from emojitune.workflow.fine_tune import follow
from emojitune.workflow.provider import Connection, connect, provider_errors, running_server

# An embedded server as its parent sees it: writes server.json, responds, exits on SIGTERM.
SERVER = """
import json, os, sys, time
from pathlib import Path
home = Path(os.environ["EMOJITUNE_HOME"])
home.joinpath("api_key").write_text("key-of-home\\n")
home.joinpath("server.json").write_text(json.dumps({"url": sys.argv[1], "pid": os.getpid()}))
time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def write_server_file(home: Path, url: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "server.json").write_text(json.dumps({"url": url, "pid": 1}))
    (home / "api_key").write_text("key-of-home\n")


def start_with(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    """Let `connect` start `command` in place of the real server."""
    start = subprocess.Popen
    monkeypatch.setattr(
        provider.subprocess, "Popen", lambda _, **how: start([sys.executable, *command], **how)
    )


def test_openai_uses_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " sk-env\n")
    with connect("openai") as connection:
        assert connection.client.api_key == "sk-env"
        assert connection.base_url == "https://api.openai.com/v1"
        assert not connection.is_emojitune


def test_openai_prompts_for_the_key() -> None:
    with connect("openai", prompt_for_key=lambda prompt: "sk-typed") as connection:
        assert connection.client.api_key == "sk-typed"


@pytest.mark.parametrize("prompt_for_key", [None, lambda prompt: ""])
def test_no_key_is_an_error(prompt_for_key: provider.PromptForKey | None) -> None:
    with pytest.raises(ConfigurationError, match="There is no API key"):
        connect("openai", prompt_for_key=prompt_for_key)


def test_azure_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "openai's")
    url = provider.azure_url("My-Resource")
    assert url == "https://my-resource.openai.azure.com/openai/v1"
    monkeypatch.setattr(provider, "is_healthy", lambda url: False)
    with pytest.raises(ConfigurationError, match="Set AZURE_OPENAI_API_KEY"):
        provider.connect(url)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure's")
    with provider.connect(f"{url}/") as connection:
        assert (connection.client.api_key, connection.base_url) == ("azure's", url)


@pytest.mark.parametrize("healthy", [True, False])
def test_a_url_may_be_an_emojitune_server(fake_api: FakeApi, healthy: bool) -> None:
    fake_api.healthy = healthy
    with connect(fake_api.url, prompt_for_key=lambda prompt: "k") as connection:
        assert connection.is_emojitune is healthy
        assert connection.base_url == fake_api.url


@pytest.mark.parametrize(
    "provider",
    [
        "azure",
        "127.0.0.1:8808/v1",
        "ftp://127.0.0.1/v1",
        "http:///v1",
        "http://[::1/v1",
        "http://a:b",
        "http://a b/v1",
        "http://caf\udce9/v1",
    ],
)
def test_an_invalid_provider_is_an_error(provider: str) -> None:
    with pytest.raises(ConfigurationError, match="must be local, openai or a base URL"):
        connect(provider, prompt_for_key=lambda prompt: "k")


@pytest.mark.parametrize("form", ["{0}", "{0}/", "{0}/v1", " {0}/v1/\n"])
def test_a_base_url_needs_no_v1(fake_api: FakeApi, form: str) -> None:
    given = form.format(fake_api.url.removesuffix("/v1").replace("http", "HTTP"))
    with connect(given, prompt_for_key=lambda prompt: "k") as connection:
        assert connection.base_url == fake_api.url
        assert connection.client.models.list().data


def test_an_ipv6_address_and_another_path_are_kept() -> None:
    for url in ("http://[::1]:8808/v1", "http://127.0.0.1:9/proxy/v1"):
        with connect(url, prompt_for_key=lambda prompt: "k") as connection:
            assert connection.base_url == url


@pytest.mark.parametrize("provider", ["openai", "url", "local"])
def test_this_machine_is_reached_without_a_proxy(
    fake_api: FakeApi, settings: Settings, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_BASE_URL", fake_api.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    write_server_file(settings.home, fake_api.url)
    with connect(fake_api.url if provider == "url" else provider, settings) as connection:
        assert connection.client.models.list().data


@pytest.mark.parametrize("provider", ["url", "local"])
def test_the_unspecified_address_is_this_machine(
    fake_api: FakeApi, settings: Settings, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    url = fake_api.url.replace("127.0.0.1", "0.0.0.0")
    write_server_file(settings.home, url)
    with connect(url if provider == "url" else provider, settings) as connection:
        assert connection.client.models.list().data


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
def test_a_value_that_no_header_can_carry_is_rejected_but_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv(name, "schlüssel")
    with pytest.raises(ConfigurationError, match=f"{name} may have visible ASCII") as caught:
        connect("openai")
    assert "schl" not in caught.value.message


def test_variables_are_stripped_and_empty_ones_are_unset(
    fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f" {fake_api.url}\n")
    monkeypatch.setenv("OPENAI_ORG_ID", "")
    monkeypatch.setenv("OPENAI_PROJECT_ID", " \n")
    with connect("openai", prompt_for_key=lambda prompt: " typed\n") as connection:
        assert connection.client.api_key == "typed"
        assert connection.client.organization is None
        assert connection.client.models.list().data


@pytest.mark.parametrize("suffix", ["", "/", "/v1/"])
def test_local_finds_the_running_server(fake_api: FakeApi, settings: Settings, suffix: str) -> None:
    write_server_file(settings.home, fake_api.url.removesuffix("/v1") + suffix)
    with connect("local", settings) as connection:
        assert connection.base_url == fake_api.url
        assert connection.client.api_key == "key-of-home"
        assert connection.server is None


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": 1}', '{"url": "http://127.0.0.1:9/v1"}'])
def test_a_stale_or_broken_server_file_is_ignored(settings: Settings, note: str) -> None:
    settings.home.mkdir()
    (settings.home / "server.json").write_text(note)
    assert running_server(settings.home) is None


def test_local_starts_a_server_and_stops_it(
    fake_api: FakeApi, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_api.polls = 9  # its job is over
    start_with(monkeypatch, "-c", SERVER, fake_api.url)
    with connect("local", settings) as connection:
        assert connection.server is not None
        assert connection.server.poll() is None
        assert connection.client.api_key == "key-of-home"
    assert connection.server.poll() is not None


def test_the_key_of_an_environment_set_up_for_the_server_is_used(
    fake_api: FakeApi, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "server.json").write_text(json.dumps({"url": fake_api.url}))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.setenv("OPENAI_BASE_URL", fake_api.url)
    with connect("local", settings) as connection:
        assert connection.client.api_key == "sk-mine"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    with pytest.raises(ConfigurationError, match="key cannot be read"):
        connect("local", settings)


def test_a_started_server_keeps_running_while_a_job_runs(
    started: Connection, fake_api: FakeApi
) -> None:
    fake_api.polls = 0  # its job is running
    started.close()
    assert started.server is not None
    assert started.server.poll() is None


def test_a_started_server_keeps_running_after_ctrl_c(started: Connection) -> None:
    with pytest.raises(KeyboardInterrupt), started:
        raise KeyboardInterrupt
    assert started.server is not None
    assert started.server.poll() is None


@pytest.fixture
def started(
    fake_api: FakeApi, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    fake_api.polls = 9
    start_with(monkeypatch, "-c", SERVER, fake_api.url)
    connection = connect("local", settings)
    assert connection.server is not None
    yield connection
    connection.client.close()
    connection.server.kill()
    connection.server.wait()


def test_a_server_that_fails_to_start_is_reported_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_with(monkeypatch, "-c", "print('no room on the disk'); raise SystemExit(3)")
    with pytest.raises(ConfigurationError) as caught:
        connect("local", settings)
    assert "ended with code 3" in caught.value.message
    assert "no room on the disk" in caught.value.message
    assert str(settings.home / "server.log") in caught.value.message
    assert mode(settings.home / "server.log") == "600", "messages may be in it"


def test_a_server_that_never_responds_is_stopped(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "START_SECONDS", 0.2)
    start_with(monkeypatch, "-c", "import time; time.sleep(60)")
    with pytest.raises(ConfigurationError, match="was not ready"):
        connect("local", settings)


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(ConfigurationError, match="cannot be used"):
        connect("local", Settings(home=tmp_path / "home"))


def test_settings_passed_in_code_reach_the_server(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, api_key="secret", threads=2)
    environment = provider._server_environment(settings)
    assert environment["EMOJITUNE_API_KEY"] == "secret"
    assert environment["EMOJITUNE_THREADS"] == "2"
    assert environment["EMOJITUNE_HOME"] == str(tmp_path)


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "Check the API key"), (403, "needs no account"), (400, "No, not you")],
)
def test_error_statuses_are_translated(fake_api: FakeApi, status: int, message: str) -> None:
    fake_api.refuse = status
    client = openai.OpenAI(base_url=fake_api.url, api_key="sk-secret", max_retries=0)
    with client, pytest.raises(ProviderError, match=message) as caught, provider_errors():
        client.models.list()
    assert caught.value.code == "nope"
    assert "sk-secret" not in caught.value.message


@pytest.mark.parametrize("status", [None, 404])
@pytest.mark.parametrize(
    "other", [("text/html; charset=utf-8", b"<html>Hi"), ("application/json", b"{")]
)
def test_a_url_without_an_api_is_reported_as_such(
    fake_api: FakeApi, status: int | None, other: tuple[str, bytes]
) -> None:
    fake_api.refuse, fake_api.other = status, other
    url = fake_api.url.removesuffix("v1") + "app"
    with connect(url, prompt_for_key=lambda prompt: "k") as connection:
        with pytest.raises(ProviderError, match="ends in /v1") as caught, provider_errors():
            connection.client.models.list()
        with pytest.raises(ProviderError, match="ends in /v1"):
            list(follow(connection.client, "ftjob-1"))
    assert "<html>" not in caught.value.message


def test_the_key_of_a_home_may_not_be_empty(fake_api: FakeApi, settings: Settings) -> None:
    write_server_file(settings.home, fake_api.url)
    (settings.home / "api_key").write_text("\n")
    with pytest.raises(ConfigurationError, match="must hold a key, and is empty"):
        connect("local", settings)


def test_an_unreachable_api_is_translated() -> None:
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="k", max_retries=0)
    with client, pytest.raises(ProviderError, match="cannot be reached"), provider_errors():
        client.models.list()
