// Drives a running server with Vercel's AI SDK: chat by its provider for OpenAI-compatible servers, responses by the one for OpenAI.
//
//     node with_ai_sdk.mjs --url http://127.0.0.1:8000
import assert from 'node:assert/strict'
import { createOpenAI, VERSION as openaiVersion } from '@ai-sdk/openai'
import { createOpenAICompatible, VERSION as compatibleVersion } from '@ai-sdk/openai-compatible'
import { embed, generateText, isStepCount, Output, streamText, tool } from 'ai'
import { z } from 'zod'
import { both, check, fails, key, question, run, served, tooLong, tooLongText, url } from './checks.mjs'

const provider = { baseURL: `${url}/v1`, apiKey: key }
const compatible = createOpenAICompatible({ ...provider, name: 'tallow', includeUsage: true, supportsStructuredOutputs: true })
const models = { chat: name => compatible(name), responses: name => createOpenAI(provider).responses(name) }
const city = z.object({ name: z.string().max(20), coastal: z.boolean() })
const inputSchema = z.object({ city: z.string() })
const tools = {
  get_weather: tool({ description: 'Tells the weather of a city.', inputSchema, execute: () => '18 degrees, sunny' }),
  get_time: tool({ description: 'Tells the time of a city.', inputSchema, execute: () => 'noon' }),
}
const common = { temperature: 0, maxOutputTokens: 48, maxRetries: 0 }
const namesOf = result => result.toolCalls.map(call => call.toolName)

for (const [protocol, model] of Object.entries(models)) {
  const ask = (prompt, more) => generateText({ model: model(served), prompt, ...common, ...more })
  const stream = (prompt, more) => streamText({ model: model(served), prompt, onError: () => {}, ...common, ...more })

  check(`${protocol} whole`, async () => {
    const answer = await ask('Say hello.', { maxOutputTokens: 16 })
    assert.ok(answer.text)
    assert.ok(answer.usage.inputTokens > 0 && answer.usage.outputTokens > 0)
  })

  check(`${protocol} streamed with usage`, async () => {
    const answer = stream('Say hello.', { maxOutputTokens: 16 })
    let text = ''
    for await (const delta of answer.textStream) text += delta
    const whole = await ask('Say hello.', { maxOutputTokens: 16 })
    assert.equal(text, whole.text)
    assert.equal((await answer.usage).outputTokens, whole.usage.outputTokens)
    assert.equal(await answer.finishReason, whole.finishReason)
  })

  check(`${protocol} tools auto`, async () => {
    const answer = await ask(question, { tools })
    assert.ok((answer.toolCalls.length ? ['tool-calls', 'length'] : ['stop', 'length']).includes(answer.finishReason), answer.finishReason)
  })

  check(`${protocol} tools required`, async () => {
    assert.ok(namesOf(await ask('Good morning!', { tools, toolChoice: 'required' })).length)
  })

  check(`${protocol} tools named`, async () => {
    const names = namesOf(await ask(question, { tools, toolChoice: { type: 'tool', toolName: 'get_time' } }))
    assert.deepEqual([...new Set(names)], ['get_time'])
  })

  check(`${protocol} tools parallel`, async () => {
    const answer = await ask(both, { tools, toolChoice: 'required', maxOutputTokens: 96 })
    assert.equal(answer.toolResults.length, answer.toolCalls.length)
    assert.equal(new Set(answer.toolCalls.map(call => call.toolCallId)).size, answer.toolCalls.length)
  })

  check(`${protocol} tools streamed`, async () => {
    const answer = stream(question, { tools, toolChoice: 'required' })
    await answer.consumeStream()
    const whole = await ask(question, { tools, toolChoice: 'required' })
    assert.deepEqual((await answer.toolCalls).map(call => call.input), whole.toolCalls.map(call => call.input))
  })

  check(`${protocol} second turn with the tools result`, async () => {
    const prepareStep = ({ stepNumber }) => ({ toolChoice: stepNumber ? 'none' : 'required' })
    const answer = await ask(question, { tools, prepareStep, stopWhen: isStepCount(2) })
    assert.equal(answer.steps.length, 2)
    assert.ok(answer.text)
  })

  check(`${protocol} structured output`, async () => {
    city.parse((await ask('Tell of Genoa.', { output: Output.object({ schema: city }) })).output)
    const streamed = stream('Tell of Genoa.', { output: Output.object({ schema: city }) })
    city.parse(await streamed.output)
  })

  check(`${protocol} error of a wrong model`, async () => {
    assert.match((await fails(404, () => ask('x', { model: model('no-such-model') }))).message, /no-such-model/)
  })

  check(`${protocol} error of a prompt that is too long`, async () => {
    assert.match((await fails(400, () => ask(tooLong))).message, tooLongText)
  })

  check(`${protocol} error of a wrong field`, async () => {
    assert.match((await fails(400, () => ask('x', { temperature: -1 }))).message, /temperature/)
  })
}

check('responses previous response id', async () => {
  const ask = (prompt, openai) => generateText({ model: models.responses(served), prompt, ...common, providerOptions: { openai } })
  const first = await ask('Say hello.', {})
  const second = await ask('Once more.', { previousResponseId: first.providerMetadata.openai.responseId })
  assert.ok(second.usage.inputTokens > first.usage.inputTokens)
})

check('text completion', async () => {
  assert.ok((await generateText({ model: compatible.completionModel(served), prompt: 'Once upon a time', ...common, maxOutputTokens: 8 })).text)
})

check('a model that does not embed says so', async () => {
  await fails(400, () => embed({ model: compatible.textEmbeddingModel(served), value: 'x', maxRetries: 0 }))
})

await run(`@ai-sdk/openai-compatible ${compatibleVersion} and @ai-sdk/openai ${openaiVersion}`)
