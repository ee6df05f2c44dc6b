"""Connections to a provider: OpenAI, a server at a URL, or the local server of a home folder.

`local` uses the server that runs on the home folder, or starts one as a separate process. The
server is never imported: all communication goes through the official SDK.
"""

import ipaddress
import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import openai
from openai import DefaultHttpx2Client, OpenAI

from emojitune.disk import make_private_folder, open_private
from emojitune.errors import ConfigurationError, ProviderError
from emojitune.settings import Settings, header_value, read_key_file
from emojitune.workflow.progress import TERMINAL

IDLE_SECONDS = 600  # after which an idle embedded server exits
OPENAI_URL = "https://api.openai.com/v1"
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
START_SECONDS = 90.0  # the first start creates the database and imports large libraries

PromptForKey = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Connection:
    """A client and the provider that it is connected to.

    As a context manager it closes on exit, except after Ctrl-C: a running job must continue.
    """

    client: OpenAI
    provider: str  # "openai", "local", or the URL
    is_emojitune: bool  # understands our extra fields: decoding, labels, alternatives
    server: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def close(self) -> None:
        """Close the client, and stop the server if this connection started it and no job runs."""
        if self.server is not None and not self._has_running_jobs():
            _terminate(self.server)
        self.client.close()

    def _has_running_jobs(self) -> bool:
        # Another process may have found this server and be training on it.
        try:
            jobs = self.client.fine_tuning.jobs.list(limit=20).data
        except openai.OpenAIError:
            return False
        return any(job.status not in TERMINAL for job in jobs)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            self.close()


def connect(
    provider: str = "local",
    settings: Settings | None = None,
    *,
    prompt_for_key: PromptForKey | None = None,
) -> Connection:
    """Connect to `local`, `openai` or a base URL such as `http://127.0.0.1:8808/v1`.

    The API key for OpenAI or a URL is `OPENAI_API_KEY`, for one of Azure `AZURE_OPENAI_API_KEY`, or
    else the result of `prompt_for_key`.

    Raises:
        ConfigurationError: The key is missing, or the key or the URL is invalid.
    """
    provider = provider.strip()
    _normalize_environment()
    if provider == "local":
        return _connect_local(settings or Settings())
    if provider == "openai":
        base_url = os.environ.get("OPENAI_BASE_URL", OPENAI_URL)
        url = _parse_base_url(base_url, "OPENAI_BASE_URL must be a base URL")
        client = _make_client(url, _api_key(url, prompt_for_key), bypass_proxy=_is_local_url(url))
        return Connection(client, provider, is_emojitune=False)
    url = _parse_base_url(provider, "The provider must be local, openai or a base URL")
    client = _make_client(url, _api_key(url, prompt_for_key), bypass_proxy=_is_local_url(url))
    return Connection(client, url, is_emojitune=is_healthy(url))


def azure_url(resource: str) -> str:
    """The base URL of an Azure OpenAI resource, by the name of the resource.

    Raises:
        ConfigurationError: No resource has such a name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{1,63}", resource):
        raise ConfigurationError(
            "The resource must be the name of an Azure OpenAI resource, the first part of its "
            f"address https://NAME.openai.azure.com, not {resource!r}.",
            param="resource",
        )
    return f"https://{resource.lower()}.openai.azure.com/openai/v1"


def is_azure(url: str) -> bool:
    """Whether a base URL is one of Azure, which has keys and dates of its own."""
    return (urlsplit(url).hostname or "").endswith(_AZURE_HOSTS)


def _make_client(
    url: str, key: str, *, bypass_proxy: bool, ssl_context: ssl.SSLContext | None = None
) -> OpenAI:
    http = DefaultHttpx2Client(
        trust_env=not bypass_proxy,
        # A client that ignores the environment also ignores SSL_CERT_FILE; a default context reads
        # it.
        verify=ssl_context or (ssl.create_default_context() if bypass_proxy else True),
        event_hooks={"response": [_treat_html_as_json]},
    )
    return OpenAI(base_url=url, api_key=key, http_client=http)


def _treat_html_as_json(response: Any) -> None:
    """Make a web page fail to parse as JSON, where the SDK would return it as text."""
    if response.is_success and response.headers.get("content-type", "").startswith("text/html"):
        response.headers["content-type"] = "application/json"


def _is_local_url(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _parse_base_url(url: str, rule: str) -> str:
    """The normalized base URL, with `/v1` as its path if it has none.

    Raises:
        ConfigurationError: The URL is invalid; the message begins with `rule`.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        usable = parts.scheme in ("http", "https") and bool(host) and not re.search(r"\s", url)
        _ = parts.port  # a number, or a ValueError
    except ValueError:  # a UnicodeError of an invalid host name is one, too
        usable = False
    if not usable:
        raise ConfigurationError(
            f"{rule}, such as http://127.0.0.1:8808/v1, not {url!r}.", param="provider"
        )
    path = parts.path.rstrip("/") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _normalize_environment() -> None:
    """Strip the variables that the SDK reads, and unset the empty ones.

    Raises:
        ConfigurationError: A value contains characters that no HTTP header can carry.
    """
    for name in (
        *("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"),
        *("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"),
    ):
        if (value := os.environ.get(name)) is None:
            continue
        if stripped := _header_value(name, value):
            os.environ[name] = stripped
        else:
            del os.environ[name]


def _header_value(name: str, value: str) -> str:
    try:
        return header_value(name, value)
    except ValueError as error:
        raise ConfigurationError(f"{error}.", param=name) from None


def _api_key(url: str, prompt_for_key: PromptForKey | None) -> str:
    variable = "AZURE_OPENAI_API_KEY" if is_azure(url) else "OPENAI_API_KEY"
    key = os.environ.get(variable, "")
    if not key and prompt_for_key:
        key = _header_value("The key", prompt_for_key("API key (not shown, not stored): "))
    if not key:
        raise ConfigurationError(
            f"There is no API key. Set {variable}, or run this in a terminal and type it. "
            "On this machine, --provider local needs none.",
            code="invalid_api_key",
        )
    return key


def _connect_local(settings: Settings) -> Connection:
    server = None
    url = running_server(settings.home)
    if url is None:
        server = _start_server(settings)
        try:
            url = _wait_until_ready(settings.home, server)
        except BaseException:
            _terminate(server)
            raise
    key = _local_api_key(settings, url)
    client = _make_client(url, key, bypass_proxy=True, ssl_context=_ssl_context(settings.home))
    return Connection(client, "local", is_emojitune=True, server=server)


def running_server(home: Path) -> str | None:
    """The base URL of the server that runs on `home`; None if none responds."""
    url = _server_info(home).get("url")
    if not isinstance(url, str):
        return None
    url = url.rstrip("/").removesuffix("/v1") + "/v1"
    return url if is_healthy(url, _ssl_context(home)) else None


def _server_info(home: Path) -> dict[str, Any]:
    """The contents of `server.json` in a home folder; empty if it is missing or incomplete."""
    try:
        info = json.loads((home / "server.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def _ssl_context(home: Path) -> ssl.SSLContext | None:
    """A context that trusts exactly the certificate of this home's server, whatever its host name;
    None if it has no certificate."""
    try:
        context = ssl.create_default_context(cafile=_server_info(home)["certificate"])
    except (KeyError, OSError):
        return None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def is_healthy(base_url: str, ssl_context: ssl.SSLContext | None = None) -> bool:
    """Whether an emojitune server responds at `base_url`."""
    health = base_url.rstrip("/").removesuffix("/v1") + "/healthz"
    opener = urllib.request.build_opener(  # bypasses any proxy
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl_context)
    )
    try:
        with opener.open(health, timeout=5) as response:
            return bool(json.load(response) == {"status": "ok"})
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        return False
    except (OSError, ValueError):
        return False


def _local_api_key(settings: Settings, url: str) -> str:
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    key = os.environ.get("OPENAI_API_KEY")
    if key and os.environ.get("OPENAI_BASE_URL", "").rstrip("/") == url:
        return key  # the environment is set up for this very server
    path = settings.home / "api_key"
    try:
        return read_key_file(path)
    except ValueError as error:
        raise ConfigurationError(f"{error}.", param="api_key") from None
    except OSError as error:
        raise ConfigurationError(
            f"The server's key cannot be read from {path} ({error.strerror}). If it was started "
            "with a key of your own, set EMOJITUNE_API_KEY to the same.",
            param="api_key",
        ) from error


def _start_server(settings: Settings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "emojitune.cli.main", "serve", "--port", "0"]
    command += ["--home", str(settings.home), "--idle-timeout", str(IDLE_SECONDS)]
    try:
        make_private_folder(settings.home)
        with open_private(_log_path(settings.home), "wb") as log:
            # A session of its own: Ctrl-C in this terminal must not reach the running job.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_server_environment(settings),
                start_new_session=True,
            )
    except OSError as error:
        raise ConfigurationError(
            f"The home folder {settings.home} cannot be used ({error.strerror}). "
            "Name another with --home or EMOJITUNE_HOME.",
            param="home",
        ) from error


def _server_environment(settings: Settings) -> dict[str, str]:
    """Environment variables of this process, plus one for each setting passed in code."""
    passed = {name: str(getattr(settings, name)) for name in settings.model_fields_set}
    if settings.api_key is not None:
        passed["api_key"] = settings.api_key.get_secret_value()
    variables = {f"EMOJITUNE_{name.upper()}": value for name, value in passed.items()}
    return {**os.environ, **variables}


def _wait_until_ready(home: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        has_exited = server.poll() is not None
        # After poll: if another process won the race for the home, its server is used.
        if url := running_server(home):
            return url
        if has_exited:
            raise ConfigurationError(_start_failure(home, f"ended with code {server.returncode}"))
        time.sleep(0.1)
    raise ConfigurationError(_start_failure(home, f"was not ready in {START_SECONDS:.0f} s"))


def _start_failure(home: Path, what: str) -> str:
    log = _log_path(home)
    last_lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
    quoted = "\n".join(f"  {line}" for line in last_lines) or "  (nothing)"
    return f"The embedded server {what}. The last lines of {log}:\n{quoted}"


def _log_path(home: Path) -> Path:
    return home / "server.log"


def _terminate(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@contextmanager
def provider_errors() -> Iterator[None]:
    """Translate the SDK's exceptions to ProviderError; the one place that does."""
    try:
        yield
    except openai.APIConnectionError as error:
        raise ProviderError(
            f"The API at {error.request.url} cannot be reached: {error.__cause__ or error}. "
            "Check the URL, the network and whether the server runs.",
            code="connection_error",
        ) from error
    except openai.APIStatusError as error:
        raise ProviderError(_status_message(error), code=error.code, param=error.param) from error
    except openai.OpenAIError as error:
        raise ProviderError(f"The API's response cannot be used: {error}") from error
    except json.JSONDecodeError as error:
        raise ProviderError(
            f"The API's response must be JSON, but is something else. {_BASE_URL_ADVICE}"
        ) from error


_BASE_URL_ADVICE = "Check the base URL: with most servers it ends in /v1."
_STATUS_ADVICE = {
    401: "Check the API key.",
    403: "The API does not allow this to your account; the local provider needs no account.",
    429: "Wait, or check the account's quota.",
}


def _status_message(error: openai.APIStatusError) -> str:
    refusal = f"The API refused ({error.status_code}): {_error_text(error)}"
    wrong_path = error.status_code == 404 and "/v1/" not in error.request.url.path
    advice = _BASE_URL_ADVICE if wrong_path else _STATUS_ADVICE.get(error.status_code)
    return f"{refusal} {advice}" if advice else refusal


def _error_text(error: openai.APIStatusError) -> str:
    """The API's error message; for a web page only the reason phrase of its status."""
    body = error.body
    if isinstance(body, dict) and isinstance(message := body.get("message"), str):
        return message
    is_page = error.response.headers.get("content-type", "").startswith("text/html")
    return f"{error.response.reason_phrase}." if is_page else error.message
