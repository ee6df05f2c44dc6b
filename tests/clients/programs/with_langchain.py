import json
import sys
from typing import Literal

import openai
import tiktoken
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict


class Mood(BaseModel):
    """How somebody feels."""

    # A random model would use the freedom to add more.
    model_config = ConfigDict(extra="forbid")
    mood: Literal["good", "bad"]


# In place of the vocabulary that tiktoken fetches from the network: a token a byte, with ids that
# are as far from a small model's as most of the real ones.
tiktoken.get_encoding = tiktoken.encoding_for_model = lambda _name: tiktoken.Encoding(
    "bytes",
    pat_str=r".",
    mergeable_ranks={bytes([byte]): 90_000 + byte for byte in range(256)},
    special_tokens={},
)

chat = ChatOpenAI(model=sys.argv[1], max_tokens=50)
reply = chat.invoke([("system", "Labels only."), ("human", "What a day")])
streamed = "".join(chunk.content for chunk in chat.stream("What a day"))

# Of gpt-3.5-turbo it believes that it knows no schemas.
base = ChatOpenAI(model="gpt-4o-mini", max_tokens=200)
structured = {
    method: base.with_structured_output(Mood, method=method).invoke("What a day").mood
    for method in ("json_schema", "function_calling")
}
calls = base.bind_tools([Mood], tool_choice="Mood").invoke("What a day").tool_calls

texts = ["What a day", "dog"]
names = {"model": "text-embedding-3-small"}
vectors = OpenAIEmbeddings(**names, check_embedding_ctx_length=False).embed_documents(texts)
try:
    OpenAIEmbeddings(**names).embed_documents(texts)
    refusal = ""
except openai.BadRequestError as error:
    refusal = error.message

print(
    json.dumps(
        {
            "reply": reply.content,
            "streamed": streamed,
            "tokens": reply.usage_metadata["total_tokens"],
            "structured": structured,
            "calls": [[call["name"], call["args"]["mood"]] for call in calls],
            "sizes": [len(vector) for vector in vectors],
            "refusal": refusal,
        }
    )
)
