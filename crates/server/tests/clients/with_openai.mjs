// Drives a running server with the official `openai` package for Node.
//
//     node with_openai.mjs --url http://127.0.0.1:8000
import assert from 'node:assert/strict'
import OpenAI from 'openai'
import { zodFunction, zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { VERSION } from 'openai/version'
import { z } from 'zod'
import { both, check, fails, key, question, run, served, time, tooLong, tooLongText, url, weather } from './checks.mjs'

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, timeout: 300_000 })
const tools = [weather, time].map(tool => ({ type: 'function', function: tool }))
const responsesTools = [weather, time].map(tool => ({ type: 'function', strict: true, ...tool }))
const city = z.object({ name: z.string().max(20), coastal: z.boolean() })

const options = (content, more) => ({
  model: served,
  messages: [{ role: 'user', content }],
  temperature: 0,
  max_tokens: 48,
  ...more,
})
const chat = (content, more) => client.chat.completions.create(options(content, more))
const respond = (input, more) => client.responses.create({ model: served, input, temperature: 0, max_output_tokens: 48, ...more })

async function refused(status, code, param, call) {
  const error = await fails(status, call)
  assert.deepEqual([error.code, error.param], [code, param], `${error}`)
  return error
}

// The names of a whole answer's calls.
function callsOf({ choices: [{ message, finish_reason }] }) {
  const calls = message.tool_calls ?? []
  assert.ok((calls.length ? ['tool_calls', 'length'] : ['stop', 'length']).includes(finish_reason), finish_reason)
  for (const call of calls) assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['city'])
  return calls.map(call => call.function.name)
}

check('chat', async () => {
  const answer = await chat('Say hello.', { max_tokens: 8 })
  assert.ok(answer.choices[0].message.content)
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
})

check('stream with usage', async () => {
  const parts = []
  for await (const part of await chat('Say hello.', { max_tokens: 8, stream: true, stream_options: { include_usage: true } })) parts.push(part)
  const whole = await chat('Say hello.', { max_tokens: 8 })
  assert.equal(parts.map(part => part.choices[0]?.delta.content ?? '').join(''), whole.choices[0].message.content)
  assert.deepEqual(parts.at(-1).usage.completion_tokens, whole.usage.completion_tokens)
})

check('tools auto', async () => {
  for (const name of callsOf(await chat(question, { tools }))) assert.ok(['get_weather', 'get_time'].includes(name))
})

check('tools required', async () => {
  assert.ok(callsOf(await chat('Good morning!', { tools, tool_choice: 'required' })).length)
})

check('tools named', async () => {
  const names = callsOf(await chat(question, { tools, tool_choice: { type: 'function', function: { name: 'get_time' } } }))
  assert.deepEqual([...new Set(names)], ['get_time'])
})

check('tools parallel', async () => {
  const more = { tools, tool_choice: 'required', max_tokens: 96 }
  const names = callsOf(await chat(both, more))
  assert.deepEqual(callsOf(await chat(both, { ...more, parallel_tool_calls: false })), names.slice(0, 1))
})

check('tools streamed', async () => {
  const streamed = await client.chat.completions.stream(options(question, { tools, tool_choice: 'required' })).finalChatCompletion()
  assert.deepEqual(callsOf(streamed), callsOf(await chat(question, { tools, tool_choice: 'required' })))
})

check('second turn with the tools result', async () => {
  const first = await chat(question, { tools, tool_choice: 'required', parallel_tool_calls: false })
  const { message } = first.choices[0]
  const result = { role: 'tool', tool_call_id: message.tool_calls[0].id, content: '18 degrees, sunny' }
  const messages = [{ role: 'user', content: question }, message, result]
  const second = await chat(question, { messages, tools })
  callsOf(second)
  assert.ok(second.usage.prompt_tokens > first.usage.prompt_tokens)
})

check('the packages own loop of tools', async () => {
  let called = 0
  const tool = zodFunction({ name: 'get_weather', parameters: z.object({ city: z.string() }), function: () => `${++called} degrees` })
  const runner = client.chat.completions.runTools(options(question, { tools: [tool], tool_choice: 'required' }), { maxChatCompletions: 2 })
  await runner.done()
  assert.ok(called)
})

check('structured output', async () => {
  const more = { response_format: zodResponseFormat(city, 'city') }
  const { message } = (await client.chat.completions.parse(options('Tell of Genoa.', more))).choices[0]
  city.parse(message.parsed)
})

check('responses whole', async () => {
  const answer = await respond('Say hello.', { max_output_tokens: 16 })
  assert.equal(answer.object, 'response')
  assert.ok(answer.output_text)
})

check('responses streamed', async () => {
  const events = []
  for await (const event of await respond('Say hello.', { max_output_tokens: 16, stream: true })) events.push(event)
  assert.equal(events[0].type, 'response.created')
  const text = events.filter(event => event.type === 'response.output_text.delta').map(event => event.delta).join('')
  assert.equal(text, (await respond('Say hello.', { max_output_tokens: 16 })).output_text)
  assert.ok(['response.completed', 'response.incomplete'].includes(events.at(-1).type))
})

check('responses tools', async () => {
  const more = { tools: responsesTools, tool_choice: 'required', parallel_tool_calls: false }
  const first = await respond(question, more)
  const call = first.output.at(-1)
  assert.deepEqual([call.type, Object.keys(JSON.parse(call.arguments))], ['function_call', ['city']])
  const result = { type: 'function_call_output', call_id: call.call_id, output: '18 degrees, sunny' }
  const second = await respond([{ role: 'user', content: question }, call, result], { tools: responsesTools })
  assert.ok(second.usage.input_tokens > first.usage.input_tokens)
})

check('responses previous response id', async () => {
  const more = { tools: responsesTools, tool_choice: 'required', parallel_tool_calls: false }
  const first = await respond(question, more)
  const result = { type: 'function_call_output', call_id: first.output.at(-1).call_id, output: '18 degrees, sunny' }
  const second = await respond([result], { tools: responsesTools, previous_response_id: first.id })
  assert.ok(second.usage.input_tokens > first.usage.input_tokens)
})

check('responses structured output', async () => {
  const text = { format: zodTextFormat(city, 'city') }
  const answer = await client.responses.parse({ model: served, input: 'Tell of Genoa.', temperature: 0, max_output_tokens: 48, text })
  city.parse(answer.output_parsed)
})

check('error of a wrong model', async () => {
  await refused(404, 'model_not_found', 'model', () => chat('x', { model: 'no-such-model' }))
})

check('error of a prompt that is too long', async () => {
  assert.match((await refused(400, 'context_length_exceeded', 'messages', () => chat(tooLong))).message, tooLongText)
})

check('error of a wrong field', async () => {
  await refused(400, 'invalid_value', 'temperature', () => chat('x', { temperature: -1 }))
})

check('a model that does not embed says so', async () => {
  const ask = () => client.embeddings.create({ model: served, input: 'x' })
  assert.match((await refused(400, 'unsupported_parameter', 'model', ask)).message, /cannot embed texts/)
})

await run(`openai ${VERSION} for Node`)
