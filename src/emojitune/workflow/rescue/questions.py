"""What an old model is asked: for each conversation the requests that `evaluate` would send.

Knows requests as JSON and as lines of a batch, not who answers them.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.statistics import estimate_tokens
from emojitune.evaluation.protocol import ReplyRequest, free_requests
from emojitune.workflow.rescue.pages import raw_value

TOP_LOGPROBS = 5
_KEY_DIGITS = 32  # a custom_id of a batch has 64 characters at most


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation, by the digest of its messages."""

    key: str
    messages: tuple[Message, ...]

    @property
    def plain_messages(self) -> list[dict[str, str]]:
        """The messages as JSON."""
        return [{"role": one.role, "content": one.content} for one in self.messages]


@dataclass(frozen=True, slots=True)
class Survey:
    """All questions to a model, and the requests for each of them.

    Attributes:
        model: The model's name.
        deployment: The name that requests give instead; at Azure a model is called by it.
        requests: Greedy decoding, and the samples unless replies are text.
        is_emojitune: Whether the server understands `decoding`, and constrains without it.
    """

    model: str
    deployment: str
    questions: tuple[Question, ...]
    requests: tuple[ReplyRequest, ...]
    is_emojitune: bool = False

    @property
    def input_tokens(self) -> int:
        """An estimate over all requests."""
        tokens = sum(estimate_tokens(question.messages) for question in self.questions)
        return tokens * len(self.requests)

    @property
    def output_tokens(self) -> int:
        """The most that all replies can have."""
        each = sum(request.max_tokens * request.n for request in self.requests)
        return each * len(self.questions)

    @property
    def digest(self) -> str:
        """Of everything that is asked."""
        hasher = hashlib.sha256(repr((self.deployment, self.requests)).encode())
        for question in self.questions:
            hasher.update(question.key.encode())
        return hasher.hexdigest()[:_KEY_DIGITS]

    def bodies(self, question: Question) -> list[dict[str, Any]]:
        """The bodies of the requests for one question."""
        head: dict[str, Any] = {"model": self.deployment, "messages": question.plain_messages}
        if self.is_emojitune:
            head["decoding"] = "free"
        return [{**head, **_parameters(request)} for request in self.requests]

    def record(self, question: Question, at: str, responses: Sequence[str]) -> str:
        """One line of the file of replies.

        Args:
            responses: The JSON text of each response, as received.
        """
        head = {
            "key": question.key,
            "model": self.model,
            "at": at,
            "messages": question.plain_messages,
            "requests": [_parameters(request) for request in self.requests],
        }
        texts = ", ".join(text.replace("\r", " ").replace("\n", " ") for text in responses)
        return f'{json.dumps(head)[:-1]}, "responses": [{texts}]}}'

    def custom_ids(self, question: Question) -> list[str]:
        """The names of a question's requests in a batch."""
        return [f"{question.key}-{number}" for number in range(len(self.requests))]

    def batch_lines(self) -> list[str]:
        """The lines of a batch that asks everything."""
        fixed = {"method": "POST", "url": "/v1/chat/completions"}
        return [
            json.dumps({"custom_id": custom_id, **fixed, "body": body})
            for question in self.questions
            for custom_id, body in zip(
                self.custom_ids(question), self.bodies(question), strict=True
            )
        ]


def survey(
    model: str,
    examples: Sequence[TrainingExample],
    *,
    deployment: str | None = None,
    text_tokens: int | None = None,
    is_emojitune: bool = False,
) -> Survey:
    """The questions of a file to a model; a conversation that occurs twice is one question."""
    questions = {(question := _question(example.prompt)).key: question for example in examples}
    requests = free_requests(text_tokens)
    return Survey(model, deployment or model, tuple(questions.values()), requests, is_emojitune)


def batch_responses(lines: Iterable[bytes]) -> dict[str, str]:
    """The JSON text of each response in an output or error file of a batch, by its custom_id."""
    found = {}
    for line in lines:
        text = line.decode("utf-8", "replace").strip()
        value = json.loads(text) if text else {}
        body = raw_value(text, "response", "body")
        if body is None:
            body = json.dumps({"error": value.get("error")})
        if isinstance(custom_id := value.get("custom_id"), str):
            found[custom_id] = body
    return found


def _question(messages: tuple[Message, ...]) -> Question:
    text = json.dumps([[one.role, one.content] for one in messages])
    return Question(hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS], messages)


def _parameters(request: ReplyRequest) -> dict[str, Any]:
    """The fields of a request besides its model and messages."""
    parameters: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.n > 1:
        parameters["n"] = request.n
    if request.seed is not None:
        parameters["seed"] = request.seed
    if request.logprobs:
        parameters |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    return parameters
