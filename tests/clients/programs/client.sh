#!/usr/bin/env bash
# Upload, job, events and chat with nothing but curl. Usage: client.sh TRAINING_FILE
set -euo pipefail

ask() {
  curl --silent --show-error --fail-with-body -H "Authorization: Bearer $OPENAI_API_KEY" \
    "$OPENAI_BASE_URL/$1" "${@:2}"
}
post() { ask "$1" -H "Content-Type: application/json" -d "$2"; }
# A reply ends without a line break.
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; echo; }

file=$(ask files -F purpose=fine-tune -F "file=@$1" | field id)
job=$(post fine_tuning/jobs '{"model": "gpt-3.5-turbo", "training_file": "'"$file"'"}' |
  grep -o 'ftjob-[A-Za-z0-9]*' | head -1)
until ask "fine_tuning/jobs/$job" | grep -Eq '"status":"(succeeded|failed)"'; do
  sleep 0.2
done
ask "fine_tuning/jobs/$job/events?limit=1" | field message

model=$(ask "fine_tuning/jobs/$job" | field fine_tuned_model)
body='{"model": "'"$model"'", "messages": [{"role": "user", "content": "What a day"}]'
post chat/completions "$body}" | field content
post chat/completions "$body, \"stream\": true}" | tail -2

# `-d` alone says that the body is a form; it is JSON all the same.
ask chat/completions -d "$body}" | field content
ask chat/completions -H "Content-Type:" -d "$body}" | field content
