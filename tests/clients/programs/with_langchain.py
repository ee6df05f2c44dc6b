import json
import sys

from langchain_openai import ChatOpenAI

chat = ChatOpenAI(model=sys.argv[1], max_tokens=50)
reply = chat.invoke([("system", "Labels only."), ("human", "What a day")])
streamed = "".join(chunk.content for chunk in chat.stream("What a day"))
print(
    json.dumps(
        {
            "reply": reply.content,
            "streamed": streamed,
            "tokens": reply.usage_metadata["total_tokens"],
        }
    )
)
