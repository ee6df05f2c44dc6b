import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

let inputs = []; // of each response that is asked for
const openai = createOpenAI({
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
  fetch: (url, options) => {
    inputs.push(JSON.parse(options.body).input);
    return fetch(url, options);
  },
});

const model = openai(process.argv[2]);
const messages = [{ role: "user", content: "What a day" }];
const first = await generateText({ model, messages });
messages.push(...first.response.messages, { role: "user", content: "Again." });
let second = "";
for await (const piece of streamText({ model, messages }).textStream) second += piece;
const turns = {
  first: first.text, second, inputs,
  reply: first.response.messages[0].content[0].providerOptions.openai.itemId,
};

const inputSchema = jsonSchema({
  type: "object", properties: { mood: { type: "string", enum: ["good", "bad"] } },
  required: ["mood"], additionalProperties: false,
});
async function loop(model) {
  inputs = [];
  const moods = [];
  const note = tool({
    description: "Notes a mood.", inputSchema,
    execute: ({ mood }) => ({ noted: moods.push(mood) }),
  });
  const { steps } = await generateText({
    model, prompt: "What a day", tools: { note }, maxOutputTokens: 100, temperature: 0,
    providerOptions: { openai: { parallelToolCalls: false } },
    stopWhen: stepCountIs(9),
    // A random model neither calls nor stops by itself.
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber < 2 ? "required" : "none" }),
  });
  const reasons = steps.map((step) => step.finishReason);
  return { moods, reasons, inputs, last: steps.at(-1).response.id };
}

const base = "gpt-3.5-turbo";
const responses = await loop(openai(base));
const chat = await loop(openai.chat(base));
console.log(JSON.stringify({ ...turns, responses, chat }));
