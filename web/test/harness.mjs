// A browser, and what tests do with the page in it. Throughout, the console must stay free of errors, and nothing may be
// asked of another origin; what breaks that is put down in `faults`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { parseArgs } from "node:util";

// The server, one with a key, the folder with node_modules, and where pictures go if some are wanted.
const options = Object.fromEntries(
  ["url", "keyed-url", "key", "packages", "pictures"].map((name) => [name, { type: "string" }]),
);
export const { url, "keyed-url": keyedUrl, key, packages, pictures } = parseArgs({ options }).values;
export const here = new URL(".", import.meta.url);
const require = createRequire(`${resolve(packages)}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
export const faults = [];
export const COMPLETIONS = "**/v1/chat/completions";

export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
});

/** A page in a browser that knows nothing yet. `expected`: parts of messages of the console that belong to the test. */
export async function open({ at = url, expected = [], ...context } = {}) {
  const page = await (await browser.newContext(context)).newPage();
  page.setDefaultTimeout(60_000);
  page.on("console", (message) => {
    const text = `${message.text()} ${message.location().url}`;
    if (message.type() === "error" && !expected.some((part) => text.includes(part))) faults.push(`console: ${text}`);
  });
  page.on("pageerror", (error) => faults.push(`error: ${error.stack}`));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol !== "blob:" && origin !== at) faults.push(`a request to ${request.url()}`);
  });
  await page.goto(at);
  return page;
}

/** Has the model write until it is stopped or has written `tokens` tokens. */
export function writeLong(page, tokens = 3000) {
  return page.route(COMPLETIONS, (route) =>
    route.continue({
      postData: JSON.stringify({ ...route.request().postDataJSON(), ignore_eos: true, max_tokens: tokens }),
    }),
  );
}

/** Answers with these deltas in place of the model; gives the bodies of the requests. */
export async function play(page, ...answers) {
  const bodies = [];
  await page.route(COMPLETIONS, (route) => {
    const deltas = answers[Math.min(bodies.length, answers.length - 1)];
    bodies.push(route.request().postDataJSON());
    const usage = { prompt_tokens: 7, completion_tokens: deltas.length, prompt_tokens_details: { cached_tokens: 4 } };
    const events = deltas.map((delta) => ({ model: "played", choices: [{ delta }], usage }));
    events.push({ choices: [{ delta: {}, finish_reason: deltas.at(-1)?.tool_calls ? "tool_calls" : "stop" }] });
    const body = events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("") + "data: [DONE]\n\n";
    return route.fulfill({ contentType: "text/event-stream", body });
  });
  return bodies;
}

export const field = (page) => page.getByLabel("Your message");
export const answers = (page) => page.locator(".message.assistant");
export const text = (page) => answers(page).last().locator(".prose").last().innerText();
export const action = (page, name) => page.locator("#send", { hasText: name });
export const done = (page) => action(page, "Send").waitFor();

export async function say(page, words) {
  await field(page).fill(words);
  await field(page).press("Enter");
}

/** Asks, and waits for the whole answer. */
export async function converse(page, words) {
  await say(page, words);
  await action(page, "Stop").or(answers(page).last().locator(".figures:not(:empty)")).first().waitFor();
  await done(page);
}

/** Waits until `read` gives what `is` takes. */
export async function until(what, read, is, seconds = 60) {
  const end = Date.now() + 1000 * seconds;
  for (;;) {
    const value = await read();
    if (is(value)) return value;
    assert(Date.now() < end, `${what} did not come: ${JSON.stringify(value)}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}

export async function checkAccess(page, name) {
  // Animations let colours be measured on their way.
  await page.waitForTimeout(350);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map(
    (v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary}`).join(" | ")}`,
  );
  assert.deepEqual(told, [], name);
}
