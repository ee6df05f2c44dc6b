import fs from "node:fs";
import OpenAI from "openai";

const client = new OpenAI();
const stream = fs.createReadStream(process.argv[2]);
const file = await client.files.create({ file: stream, purpose: "fine-tune" });
const content = await (await client.files.content(file.id)).text();
let job = await client.fineTuning.jobs.create({
  model: "gpt-3.5-turbo", training_file: file.id, hyperparameters: { n_epochs: 1 },
});
while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await new Promise((done) => setTimeout(done, 200));
  job = await client.fineTuning.jobs.retrieve(job.id);
}
const events = [];
for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 2 })) {
  events.push(event.message);
}
const ask = { model: job.fine_tuned_model, messages: [{ role: "user", content: "What a day" }] };
const reply = await client.chat.completions.create(ask);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
let error = {};
try { await client.files.retrieve("file-gone"); } catch (caught) {
  error = { name: caught.constructor.name, status: caught.status, id: caught.requestID };
}
console.log(JSON.stringify({
  bytes: file.bytes, length: content.length, status: job.status, events,
  reply: reply.choices[0].message.content, streamed, error, request: reply._request_id,
}));
