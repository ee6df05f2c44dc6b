"""Tool use learned from a training file: which tool to call when, with which arguments, and what to
say about the result.

A file in OpenAI's format, the real base model, and places and rooms that are not in the file.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from emojitune.settings import Settings
from emojitune.workflow.fine_tune import create_job, fine_tuned_model, follow, upload
from emojitune.workflow.provider import connect

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather of a place.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string"}},
                "required": ["place"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "lamp",
            "description": "Turns the lamp of a room on or off.",
            "parameters": {
                "type": "object",
                "properties": {"room": {"type": "string"}, "on": {"type": "boolean"}},
                "required": ["room", "on"],
            },
        },
    },
]
BASE = "gpt-4o-mini-2024-07-18"
Call = tuple[str, dict[str, Any]]
WORDS = {"weather": "", "lamp": "Right away."}  # before a call

# Many of each: with few, a model memorizes the places instead of copying them from the prompt.
PLACES = (
    "Oslo", "Lima", "Cairo", "Dublin", "Kyoto", "Quito", "Warsaw", "Accra", "Hanoi", "Porto",
    "Denver", "Perth", "Tunis", "Riga", "Osaka", "Bogota", "Delhi", "Boston", "Lagos", "Vienna",
    "Seoul", "Havana", "Athens", "Dakar",
)  # fmt: skip
UNSEEN_PLACES = ("Madrid", "Nairobi")
ABOUT_WEATHER = (
    "Do I need an umbrella in {}?",
    "How warm is it in {} today?",
    "Is the sun out in {}?",
)
ROOMS = (
    "kitchen", "hallway", "bedroom", "cellar", "garage", "study", "attic", "bathroom", "pantry",
    "nursery", "office", "lobby", "workshop", "balcony", "sauna", "porch", "gym", "stable", "shed",
    "veranda", "basement", "closet", "greenhouse", "playroom", "chapel", "barn", "terrace",
    "parlor", "loft", "canteen", "dining room", "boathouse",
)  # fmt: skip
UNSEEN_ROOMS = ("garden", "library")
ABOUT_LAMPS = (
    ("It is too dark in the {}.", True),
    ("Light up the {}, please.", True),
    ("Nobody is in the {}, so no light there.", False),
    ("Please make it dark in the {}.", False),
)
TALK = (
    ("Thank you, that was quick!", "With pleasure."),
    ("Thanks a lot.", "With pleasure."),
    ("You are a great help.", "With pleasure."),
    ("That was kind of you.", "With pleasure."),
    ("Good morning!", "Hello, what can I do?"),
    ("Hello there.", "Hello, what can I do?"),
    ("Hi, are you awake?", "Hello, what can I do?"),
    ("Good evening to you.", "Hello, what can I do?"),
)
UNSEEN_TALK = ("Thanks, very kind!", "Hello, good day!", "Hi there!", "Thank you so much.")


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def calling(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    return {"role": "assistant", "content": WORDS[name] or None, "tool_calls": calls}


def answered(result: dict[str, Any]) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "call_1", "content": json.dumps(result)}


def about_weather(place: str, question: str) -> tuple[str, Call]:
    return question.format(place), ("weather", {"place": place})


def about_lamp(room: str, question: tuple[str, bool]) -> tuple[str, Call]:
    text, on = question
    return text.format(room), ("lamp", {"room": room, "on": on})


def until_result(place: str, rain: bool) -> list[dict[str, Any]]:
    """A conversation up to the tool's result."""
    prompt = message("user", ABOUT_WEATHER[0].format(place))
    return [prompt, calling("weather", {"place": place}), answered({"rain": rain})]


def advice(place: str, rain: bool) -> str:
    return f"Yes, it rains in {place}." if rain else f"No, it is dry in {place}."


def write_training_file(path: Path) -> None:
    questions = [
        *(about_weather(place, ABOUT_WEATHER[n % 3]) for n, place in enumerate(PLACES)),
        *(about_lamp(room, ABOUT_LAMPS[n % 4]) for n, room in enumerate(ROOMS)),
    ]
    conversations = [
        *([message("user", ask), calling(*call)] for ask, call in questions),
        *([message("user", ask), message("assistant", reply)] for ask, reply in TALK),
        *([*until_result(place, rain), message("assistant", advice(place, rain))]
          for place, rain in zip(PLACES[:12], (True, False) * 6, strict=True)),
    ]  # fmt: skip
    rows = ({"messages": messages, "tools": TOOLS} for messages in conversations)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def reply(client: OpenAI, model: str, messages: Any) -> tuple[str, Call | None]:
    """A model's text and its tool call."""
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=TOOLS, temperature=0, max_tokens=60
    )
    message = answer.choices[0].message
    words = message.content or ""
    if not message.tool_calls:
        return words, None
    [call] = message.tool_calls
    assert call.type == "function"
    return words, (call.function.name, json.loads(call.function.arguments))


def replies(client: OpenAI, model: str, prompts: Sequence[Any]) -> list[tuple[str, Call | None]]:
    """A model's replies to several conversations, which the server computes together."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda messages: reply(client, model, messages), prompts))


def right(client: OpenAI, model: str, wanted: Sequence[tuple[Any, Any]]) -> float:
    """The fraction of conversations that a model continues as expected."""
    found = replies(client, model, [messages for messages, _ in wanted])
    hits: list[bool] = [one == expected for one, (_, expected) in zip(found, wanted, strict=True)]
    return sum(hits) / len(hits)


@pytest.mark.slow
def test_a_model_learns_to_use_tools(tmp_path: Path) -> None:
    file = tmp_path / "tools.jsonl"
    write_training_file(file)
    questions = [about_weather(place, q) for place in UNSEEN_PLACES for q in ABOUT_WEATHER]
    questions += [about_lamp(room, q) for room in UNSEEN_ROOMS for q in ABOUT_LAMPS]
    calls = [([message("user", ask)], (WORDS[call[0]], call)) for ask, call in questions]
    words = [(until_result(place, rain), (advice(place, rain), None))
             for place in UNSEEN_PLACES for rain in (True, False)]  # fmt: skip
    with connect("local", Settings(home=tmp_path / "home")) as connection:
        client = connection.client
        uploaded = upload(client, file).id
        job = create_job(client, training_file=uploaded, model=BASE, n_epochs=2, seed=1)
        assert [*follow(client, job.id)][-1].status == "succeeded"
        model = fine_tuned_model(client.fine_tuning.jobs.retrieve(job.id))
        assert right(client, model, calls) >= 0.9
        assert right(client, model, words) >= 0.75
        talk = replies(client, model, [[message("user", ask)] for ask in UNSEEN_TALK])
        assert sum(call is None for _, call in talk) >= 3, talk
        untuned = right(client, BASE, calls[::4])
        assert untuned < 0.5, "it is learned in training"
