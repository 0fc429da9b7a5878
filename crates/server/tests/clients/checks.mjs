// What the programs that drive a running server with a package for Node have in common: checks that are printed one by one, and what they
// send. checks.py has the same for Python.
import assert from 'node:assert/strict'
import { parseArgs } from 'node:util'

// --only TEXT runs the checks whose names contain it.
const text = value => ({ type: 'string', default: value })
const { values } = parseArgs({ options: { url: text(), 'api-key': text('none'), only: text('') } })
export const url = values.url.replace(/\/+$/, '')
export const key = values['api-key']
export const served = (await (await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).json()).data[0].id

export const question = 'What is the weather in Paris?'
export const both = 'What is the weather in Paris, and what time is it in Rome? Call both tools.'
const parameters = {
  type: 'object',
  properties: { city: { type: 'string', maxLength: 24 } },
  required: ['city'],
  additionalProperties: false,
}
export const weather = { name: 'get_weather', description: 'Tells the weather of a city.', parameters }
export const time = { name: 'get_time', description: 'Tells the time of a city.', parameters }
// A prompt of more tokens than any context that scripts/check-clients.sh serves.
export const tooLong = 'word '.repeat(5000)
export const tooLongText = /maximum context length is/

const checks = []
export const check = (name, run) => name.includes(values.only) && checks.push({ name, run })

// The error with which the promise that `call` makes is rejected, whose field `status` must be this one.
export async function fails(status, call) {
  const error = await call().then(answer => assert.fail(`was not refused with ${status}: ${JSON.stringify(answer)}`), e => e)
  assert.equal(error.status ?? error.statusCode, status, `${error}`)
  return error
}

// Runs every check, and exits with 0 if all hold.
export async function run(title) {
  let failed = 0
  for (const { name, run } of checks) {
    try {
      await run()
      console.log(`ok      ${name}`)
    } catch (error) {
      failed += 1
      console.log(`FAILED  ${name}\n${error.stack}`)
    }
  }
  console.log(`${checks.length - failed} of ${checks.length} checks hold with ${title}`)
  process.exit(failed ? 1 : 0)
}
