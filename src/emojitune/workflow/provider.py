"""Connect to who does the work: OpenAI, a server by its URL, or one of this machine.

`local` takes the server that runs on the home folder, else starts one as a process of its own. It
is never imported: from here on everything goes through the official SDK.
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

from emojitune.disk import make_private, open_private
from emojitune.errors import ConfigurationError, ProviderError
from emojitune.settings import Settings, header_text, read_key
from emojitune.workflow.progress import TERMINAL

IDLE_SECONDS = 600  # an embedded server that nobody needs ends itself after this
OPENAI_URL = "https://api.openai.com/v1"
START_SECONDS = 90.0  # the first start creates the database and imports much

AskKey = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Connection:
    """A client and what is known of the other side.

    As a context manager it closes itself, unless Ctrl-C broke in: what runs there shall go on.
    """

    client: OpenAI
    provider: str  # "openai", "local", or the URL
    is_emojitune: bool  # understands our extra fields: decoding, labels, alternatives
    server: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def close(self) -> None:
        """End the server if this connection started it and no job needs it any more."""
        if self.server is not None and not self._has_jobs():
            _end(self.server)
        self.client.close()

    def _has_jobs(self) -> bool:
        # Another process may have found our server and be training on it.
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
    provider: str = "local", settings: Settings | None = None, *, ask_key: AskKey | None = None
) -> Connection:
    """Connect to `local`, `openai` or a base URL such as `http://127.0.0.1:8808/v1`.

    The key of OpenAI and of a URL is `OPENAI_API_KEY`, else what `ask_key` returns.

    Raises:
        ConfigurationError: There is no key, or it or the URL cannot be used.
    """
    provider = provider.strip()
    _tidy_environment()
    if provider == "local":
        return _connect_local(settings or Settings())
    if provider == "openai":
        given = os.environ.get("OPENAI_BASE_URL", OPENAI_URL)
        url = _checked_url(given, "OPENAI_BASE_URL must be a base URL")
        client = _client(url, _key(ask_key), direct=_is_this_machine(url))
        return Connection(client, provider, is_emojitune=False)
    url = _checked_url(provider, "The provider must be local, openai or a base URL")
    client = _client(url, _key(ask_key), direct=_is_this_machine(url))
    return Connection(client, url, is_emojitune=is_healthy(url))


def _client(url: str, key: str, *, direct: bool, trust: ssl.SSLContext | None = None) -> OpenAI:
    """A client; a `direct` one bypasses any proxy."""
    http = DefaultHttpx2Client(
        trust_env=not direct,
        # Without the environment a client would not know the authorities that SSL_CERT_FILE names.
        verify=trust or (ssl.create_default_context() if direct else True),
        event_hooks={"response": [_read_as_json]},
    )
    return OpenAI(base_url=url, api_key=key, http_client=http)


def _read_as_json(response: Any) -> None:
    """Let a web page fail as JSON, where the SDK would take it for text that was asked for."""
    if response.is_success and response.headers.get("content-type", "").startswith("text/html"):
        response.headers["content-type"] = "application/json"


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _checked_url(url: str, rule: str) -> str:
    """A base URL that ends where the API's paths begin: with `/v1` if it has no path.

    Raises:
        ConfigurationError: It is no URL of a server; the message begins with `rule`.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        usable = parts.scheme in ("http", "https") and bool(host) and not re.search(r"\s", url)
        _ = parts.port  # a number, or a ValueError
    except ValueError:  # a name that is none is one, too
        usable = False
    if not usable:
        raise ConfigurationError(
            f"{rule}, such as http://127.0.0.1:8808/v1, not {url!r}.", param="provider"
        )
    path = parts.path.rstrip("/") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _tidy_environment() -> None:
    """What the SDK reads of the environment, without white space and without empty values.

    Raises:
        ConfigurationError: No header can carry one of them.
    """
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        if (value := os.environ.get(name)) is None:
            continue
        if tidy := _header_text(name, value):
            os.environ[name] = tidy
        else:
            del os.environ[name]


def _header_text(name: str, value: str) -> str:
    try:
        return header_text(name, value)
    except ValueError as error:
        raise ConfigurationError(f"{error}.", param=name) from None


def _key(ask_key: AskKey | None) -> str:
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key and ask_key:
        key = _header_text("The key", ask_key("API key (not shown, not stored): "))
    if not key:
        raise ConfigurationError(
            "There is no API key. Set OPENAI_API_KEY, or run this in a terminal and type it, "
            "or leave --provider out to train on this machine.",
            code="invalid_api_key",
        )
    return key


def _connect_local(settings: Settings) -> Connection:
    server = None
    url = running_server(settings.home)
    if url is None:
        server = _start(settings)
        try:
            url = _wait_until_ready(settings.home, server)
        except BaseException:
            _end(server)
            raise
    key = _local_key(settings, url)
    client = _client(url, key, direct=True, trust=_trust(settings.home))
    return Connection(client, "local", is_emojitune=True, server=server)


def running_server(home: Path) -> str | None:
    """The base URL of the server that runs on `home`, if there is one and it answers."""
    url = _note(home).get("url")
    if not isinstance(url, str):
        return None
    url = url.rstrip("/").removesuffix("/v1") + "/v1"
    return url if is_healthy(url, _trust(home)) else None


def _note(home: Path) -> dict[str, Any]:
    """What a server says of itself in its home; nothing when none runs, or one is just writing."""
    try:
        note = json.loads((home / "server.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _trust(home: Path) -> ssl.SSLContext | None:
    """Trust in the very certificate of the server of this home, whatever name it is for; None when
    it has none."""
    try:
        context = ssl.create_default_context(cafile=_note(home)["certificate"])
    except (KeyError, OSError):
        return None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def is_healthy(base_url: str, trust: ssl.SSLContext | None = None) -> bool:
    """Whether an emojitune server answers at `base_url`."""
    health = base_url.rstrip("/").removesuffix("/v1") + "/healthz"
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
    )
    try:
        with direct.open(health, timeout=5) as answer:
            return bool(json.load(answer) == {"status": "ok"})
    except (OSError, ValueError):
        return False


def _local_key(settings: Settings, url: str) -> str:
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    own = os.environ.get("OPENAI_API_KEY")
    if own and os.environ.get("OPENAI_BASE_URL", "").rstrip("/") == url:
        return own  # the terminal is set up for this very server
    path = settings.home / "api_key"
    try:
        return read_key(path)
    except ValueError as error:
        raise ConfigurationError(f"{error}.", param="api_key") from None
    except OSError as error:
        raise ConfigurationError(
            f"The server's key cannot be read from {path} ({error.strerror}). If it was started "
            "with a key of your own, set EMOJITUNE_API_KEY to the same.",
            param="api_key",
        ) from error


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "emojitune.cli.main", "serve", "--port", "0"]
    command += ["--home", str(settings.home), "--idle-timeout", str(IDLE_SECONDS)]
    try:
        make_private(settings.home)
        with open_private(_log(settings.home), "wb") as log:
            # A session of its own: Ctrl-C in this terminal must not reach the running job.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(settings),
                start_new_session=True,
            )
    except OSError as error:
        raise ConfigurationError(
            f"The home folder {settings.home} cannot be used ({error.strerror}). "
            "Name another with --home or EMOJITUNE_HOME.",
            param="home",
        ) from error


def _environment(settings: Settings) -> dict[str, str]:
    """The server's environment: ours, and the settings that were given in code."""
    given = {name: str(getattr(settings, name)) for name in settings.model_fields_set}
    if settings.api_key is not None:
        given["api_key"] = settings.api_key.get_secret_value()
    for_server = {f"EMOJITUNE_{name.upper()}": value for name, value in given.items()}
    return {**os.environ, **for_server}


def _wait_until_ready(home: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        died = server.poll() is not None
        # Asked after poll: when another process won the race for the home, its server serves us.
        if url := running_server(home):
            return url
        if died:
            raise ConfigurationError(_did_not_start(home, f"ended with code {server.returncode}"))
        time.sleep(0.1)
    raise ConfigurationError(_did_not_start(home, f"was not ready in {START_SECONDS:.0f} s"))


def _did_not_start(home: Path, what: str) -> str:
    log = _log(home)
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
    said = "\n".join(f"  {line}" for line in last) or "  (nothing)"
    return f"The embedded server {what}. The last lines of {log}:\n{said}"


def _log(home: Path) -> Path:
    return home / "server.log"


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@contextmanager
def provider_errors() -> Iterator[None]:
    """The one place where the SDK's errors become ours."""
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
        raise ProviderError(f"The API's answer cannot be used: {error}") from error
    except json.JSONDecodeError as error:
        raise ProviderError(
            f"The API's answer must be JSON, and is something else. {_BASE_URL_ADVICE}"
        ) from error


_BASE_URL_ADVICE = "Check the base URL: with most servers it ends in /v1."
_STATUS_ADVICE = {
    401: "Check the API key.",
    403: "The API does not allow this to your account; the local provider needs no account.",
    429: "Wait, or check the account's quota.",
}


def _status_message(error: openai.APIStatusError) -> str:
    refusal = f"The API refused ({error.status_code}): {_said(error)}"
    elsewhere = error.status_code == 404 and "/v1/" not in error.request.url.path
    advice = _BASE_URL_ADVICE if elsewhere else _STATUS_ADVICE.get(error.status_code)
    return f"{refusal} {advice}" if advice else refusal


def _said(error: openai.APIStatusError) -> str:
    """What the API says of an error; of a web page only what its status says."""
    body = error.body
    if isinstance(body, dict) and isinstance(said := body.get("message"), str):
        return said
    is_page = error.response.headers.get("content-type", "").startswith("text/html")
    return f"{error.response.reason_phrase}." if is_page else error.message
