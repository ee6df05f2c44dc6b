import json
import sys
import time

import litellm

where = {"custom_llm_provider": "openai"}
with open(sys.argv[1], "rb") as opened:
    file = litellm.create_file(file=opened, purpose="fine-tune", **where)
job = litellm.create_fine_tuning_job(model="gpt-3.5-turbo", training_file=file.id, **where)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.2)
    job = litellm.retrieve_fine_tuning_job(fine_tuning_job_id=job.id, **where)
ask = {
    "model": f"openai/{job.fine_tuned_model}",
    "messages": [{"role": "user", "content": "What a day"}],
}
reply = litellm.completion(**ask).choices[0].message.content
chunks = litellm.completion(**ask, stream=True)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
print(json.dumps({"status": job.status, "reply": reply, "streamed": streamed}))
