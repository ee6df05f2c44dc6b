"""What a provider lists and sends, request by request, through the official SDK.

Responses are taken as they are received, not as the SDK's models. Knows no folder.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import openai
from openai import OpenAI

from emojitune.errors import ProviderError
from emojitune.workflow.provider import provider_errors
from emojitune.workflow.rescue.pages import Item, Page, parse_item, parse_page
from emojitune.workflow.rescue.patience import READ_SECONDS, CutError, Patience

PAGE_LIMIT = 100  # the most that a list of batches gives
_SIZE_TRIES = 2  # downloads of a file whose size is not the one that was announced

T = TypeVar("T")

Fetch = Callable[..., Any]
"""A method of the SDK that returns a raw response."""


class RefusedError(Exception):
    """The provider does not send an object, and would not send it if asked again now.

    Attributes:
        status: The HTTP status; None where the response itself cannot be used.
        message: The provider's words.
    """

    def __init__(self, status: int | None, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    @property
    def is_gone(self) -> bool:
        """Whether there is no such object, which some providers answer with 400."""
        return self.status in (400, 404)


class Source:
    """An account at a provider."""

    def __init__(self, client: OpenAI, patience: Patience) -> None:
        self._client = client.with_options(max_retries=0, timeout=READ_SECONDS)
        self._key = client.api_key
        self._patience = patience

    @property
    def url(self) -> str:
        """The base URL, without a user name and password."""
        parts = urlsplit(str(self._client.base_url).rstrip("/"))
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def jobs(self) -> Iterator[Item]:
        return self._list(self._client.fine_tuning.jobs.with_raw_response.list)

    def events(self, job_id: str) -> Iterator[Item]:
        return self._list(self._client.fine_tuning.jobs.with_raw_response.list_events, job_id)

    def checkpoints(self, job_id: str) -> Iterator[Item]:
        return self._list(self._client.fine_tuning.jobs.checkpoints.with_raw_response.list, job_id)

    def files(self) -> Iterator[Item]:
        return self._list(self._client.files.with_raw_response.list)

    def file(self, file_id: str) -> Item:
        return self._item(self._client.files.with_raw_response.retrieve, file_id)

    def models(self) -> Iterator[Item]:
        """All models: this list has no pages."""
        yield from self._page(self._client.models.with_raw_response.list).items

    def model(self, name: str) -> Item:
        return self._item(self._client.models.with_raw_response.retrieve, name)

    def batches(self) -> Iterator[Item]:
        return self._list(self._client.batches.with_raw_response.list)

    def batch(self, batch_id: str) -> Item:
        return self._item(self._client.batches.with_raw_response.retrieve, batch_id)

    def create_batch(self, lines: Sequence[str], metadata: dict[str, str]) -> Item:
        """A new batch of chat completions. It is not tried again: two batches cost twice."""
        content = "".join(f"{line}\n" for line in lines).encode()
        with self._key_hidden(), provider_errors():
            file = self._client.files.create(file=("questions.jsonl", content), purpose="batch")
            created = self._client.batches.with_raw_response.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata=metadata,
            )
        return _parse(parse_item, created.content)

    def chat(self, body: dict[str, Any]) -> Item:
        """The response to a request for a chat completion."""
        ours = {name: value for name, value in body.items() if name == "decoding"}
        openais = {name: value for name, value in body.items() if name not in ours}
        create: Fetch = self._client.chat.completions.with_raw_response.create
        return self._item(lambda: create(**openais, extra_body=ours or None))

    def chats(self) -> Iterator[Item]:
        return self._list(self._client.chat.completions.with_raw_response.list)

    def messages(self, chat_id: str) -> Iterator[Item]:
        return self._list(self._client.chat.completions.messages.with_raw_response.list, chat_id)

    def download(self, file_id: str, out: IO[bytes], size: int | None) -> str | None:
        """Write a file's content to `out`, from the start after each lost connection.

        Args:
            size: The number of bytes that the file object announces, if any.

        Returns:
            A note if another number of bytes comes every time.
        """
        received = 0
        for _ in range(_SIZE_TRIES):
            received = self._request(lambda: self._stream(file_id, out))
            if size is None or received == size:
                return None
        return f"The file object announces {size} bytes, and {received} were sent."

    def _stream(self, file_id: str, out: IO[bytes]) -> int:
        out.seek(0)
        out.truncate()
        with self._client.files.with_streaming_response.content(file_id) as response:
            chunks = response.iter_bytes()
            while (chunk := _next(chunks)) is not None:
                out.write(chunk)
        return out.tell()

    def _list(self, fetch: Fetch, *arguments: str) -> Iterator[Item]:
        """All items of a list, page by page, each of them once.

        A page follows the last item of the one before it. Where that was deleted meanwhile, the
        page after an earlier item is taken.
        """
        seen: set[str] = set()
        cursors: Sequence[str] = ()
        while True:
            page = self._next_page(fetch, arguments, cursors)
            new = [item for item in page.items if not item.id or item.id not in seen]
            seen.update(item.id for item in new)
            yield from new
            ids = [item.id for item in new if item.id]
            if page.has_more is False or not ids:  # a list that ignores `after` would never end
                return
            cursors = (ids[-1], *ids[-2:-1], ids[0])

    def _next_page(self, fetch: Fetch, arguments: Sequence[str], cursors: Sequence[str]) -> Page:
        """The page after the first of `cursors` that the provider still knows."""
        if not cursors:
            return self._page(fetch, *arguments, limit=PAGE_LIMIT)
        page, refusal = None, None
        for cursor in cursors:
            try:
                page = self._page(fetch, *arguments, limit=PAGE_LIMIT, after=cursor)
            except RefusedError as error:
                if not error.is_gone:
                    raise
                refusal = error
            else:
                if page.items:  # an empty page after "there is more" may be one of a deleted cursor
                    return page
        if page is None and refusal is not None:
            raise refusal
        return page or Page((), False)

    def _page(self, fetch: Fetch, *arguments: str, **options: Any) -> Page:
        return _parse(parse_page, self._request(lambda: fetch(*arguments, **options).content))

    def _item(self, fetch: Fetch, *arguments: str) -> Item:
        return _parse(parse_item, self._request(lambda: fetch(*arguments).content))

    def _request(self, send: Callable[[], Any]) -> Any:
        """The result of `send`, with all patience.

        Raises:
            RefusedError: The provider refuses this object, and may give others.
            ProviderError: The key is refused, or the provider cannot be reached.
        """
        try:
            with self._key_hidden():
                return self._patience.request(send)
        except openai.APIStatusError as error:
            words = self._words(error)
            if error.status_code == 401:
                raise ProviderError(
                    f"The API refused (401): {words} Check the API key.", code=error.code
                ) from None
            raise RefusedError(error.status_code, error.code, words) from None

    @contextmanager
    def _key_hidden(self) -> Iterator[None]:
        """Take the key out of the message of an error: a provider may repeat it."""
        try:
            yield
        except ProviderError as error:
            message = self._without_key(error.message)
            raise ProviderError(message, code=error.code, param=error.param) from None

    def _words(self, error: openai.APIStatusError) -> str:
        body = error.body
        message = body.get("message") if isinstance(body, dict) else None
        text = message if isinstance(message, str) else error.response.reason_phrase
        return self._without_key(text)

    def _without_key(self, text: str) -> str:
        """What a provider says, without the key if it repeats that."""
        return text.replace(self._key, "[key]") if self._key else text


def _next(chunks: Iterator[bytes]) -> bytes | None:
    """The next chunk of a body; None at its end."""
    try:
        return next(chunks, None)
    # The SDK leaves the errors of a body that is read in pieces to its HTTP library.
    except Exception as error:
        raise CutError(str(error)) from error


def _parse(parse: Callable[[bytes], T], body: bytes) -> T:
    """The value of a response.

    Raises:
        RefusedError: It cannot be used.
    """
    try:
        return parse(body)
    except ValueError as error:
        raise RefusedError(None, None, f"The response cannot be used: {error}.") from None
