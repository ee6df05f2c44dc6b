"""The listening socket: its address, the key that other machines need, the certificate."""

import ipaddress
import socket
import ssl

from emojitune.errors import ConfigurationError
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.keys import KeyStore


def open_listener(settings: Settings) -> socket.socket:
    """The server's listening socket.

    Raises:
        ConfigurationError: The address is not available, or other machines could reach it although
            no key was given or created.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        _require_key(str(address[0]), settings)
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
        # Connections inherit it. asyncio sets it only on sockets that it created itself, and
        # without it each response after the first of a connection waits 40 ms for the client.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (UnicodeError, socket.gaierror):
        raise ConfigurationError(
            "The address to listen on must be the name or the number of this machine, and "
            f"{settings.host!r} is neither. Choose another with --host.",
            param="host",
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"The server needs a free port, and {settings.host}:{settings.port} cannot be had: "
            f"{error.strerror}. Choose another with --port (0 takes a free one).",
            param="port",
        ) from error


def base_url(listener: socket.socket, settings: Settings) -> str:
    """The base URL for clients."""
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1"


def check_certificate(settings: Settings) -> None:
    """Check the certificate, if there is one, before anything is served.

    Raises:
        ConfigurationError: Certificate or key is missing, or they do not belong together.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return
    if cert is None or key is None:
        raise ConfigurationError(
            "TLS needs a certificate and its key: give both --tls-cert and --tls-key, or neither.",
            param="tls_key" if key is None else "tls_cert",
        )
    try:
        # The empty password refuses an encrypted key: there may be nobody to type a password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS needs a certificate and its key, unencrypted, as PEM files; {cert} and {key} "
            f"cannot be used: {error.strerror if isinstance(error, OSError) else error}.",
            param="tls_cert",
        ) from error


def _require_key(address: str, settings: Settings) -> None:
    """Refuse an address that other machines can reach unless a key was given or created."""
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback or _has_key(settings):
        return
    raise ConfigurationError(
        f"Others can reach {settings.host}, and no key was made for them. Make one with "
        "`emojitune keys create`, or give one as EMOJITUNE_API_KEY or --api-key; or serve this "
        "machine alone, with --host 127.0.0.1.",
        param="host",
    )


def _has_key(settings: Settings) -> bool:
    if settings.api_key is not None and settings.api_key.get_secret_value():
        return True
    database = open_database(settings.home)
    try:
        return any(key.revoked_at is None for key in KeyStore(database).list())
    finally:
        database.close()
