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
const checkpoints = [];
for await (const checkpoint of client.fineTuning.jobs.checkpoints.list(job.id)) {
  checkpoints.push(checkpoint.fine_tuned_model_checkpoint);
}

const model = job.fine_tuned_model;
const messages = [{ role: "user", content: "What a day" }];
const reply = await client.chat.completions.create({ model, messages });
let streamed = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}

const parameters = {
  type: "object", properties: { mood: { type: "string", enum: ["good", "bad"] } },
  required: ["mood"], additionalProperties: false,
};
const tool = { type: "function", function: { name: "tell", strict: true, parameters } };
const calling = client.chat.completions.stream({
  model: "gpt-3.5-turbo", messages, tools: [tool], tool_choice: "required",
  parallel_tool_calls: false,
});
let pieces = 0;
calling.on("tool_calls.function.arguments.delta", () => { pieces += 1; });
const called = (await calling.finalChatCompletion()).choices[0];
const call = called.message.tool_calls[0].function;

const response = await client.responses.create({ model, input: "What a day" });
const types = [];
for await (const event of await client.responses.create({ model, input: "A day", stream: true })) {
  types.push(event.type);
}
const embedded = await client.embeddings.create({
  model: "text-embedding-3-small", input: ["What a day", "dog"],
});

let error = {};
try { await client.files.retrieve("file-gone"); } catch (caught) {
  error = { name: caught.constructor.name, status: caught.status, id: caught.requestID };
}
console.log(JSON.stringify({
  bytes: file.bytes, length: content.length, status: job.status, events, checkpoints, model,
  reply: reply.choices[0].message.content, streamed,
  call: { name: call.name, mood: JSON.parse(call.arguments).mood, pieces },
  finish: called.finish_reason, response: response.output_text, types,
  sizes: embedded.data.map((each) => each.embedding.length),
  error, request: reply._request_id,
}));
