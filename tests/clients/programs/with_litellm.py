import json
import sys
import time
from pathlib import Path

import litellm

where = {"custom_llm_provider": "openai"}
with open(sys.argv[1], "rb") as opened:
    file = litellm.create_file(file=opened, purpose="fine-tune", **where)
content = litellm.file_content(file_id=file.id, **where).content
job = litellm.create_fine_tuning_job(model="gpt-3.5-turbo", training_file=file.id, **where)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.2)
    job = litellm.retrieve_fine_tuning_job(fine_tuning_job_id=job.id, **where)
# It has nothing for events and checkpoints.
listed = [each.id for each in litellm.list_fine_tuning_jobs(limit=1, **where)]
files = [each.id for each in litellm.file_list(**where)]
ask = {
    "model": f"openai/{job.fine_tuned_model}",
    "messages": [{"role": "user", "content": "What a day"}],
}
reply = litellm.completion(**ask).choices[0].message.content
chunks = litellm.completion(**ask, stream=True)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
response = litellm.responses(model=ask["model"], input="What a day")
vectors = litellm.embedding(model="openai/text-embedding-3-small", input=["What a day", "dog"])
print(
    json.dumps(
        {
            "same": content == Path(sys.argv[1]).read_bytes(),
            "status": job.status,
            "listed": listed[0] == job.id,
            "filed": file.id in files,
            "reply": reply,
            "streamed": streamed,
            "response": response.output[0].content[0].text,
            "sizes": [len(each["embedding"]) for each in vectors.data],
        }
    )
)
