// Drives the page of a running server in Chromium, as scripts/check-page.sh has it.
//
// The model answers for real, but for answers that must hold what no small model writes when it is asked to, such as
// hostile Markdown and tool calls: those are played.
import assert from "node:assert/strict";
import { chat } from "./chat.mjs";
import { browser, faults } from "./harness.mjs";
import { markdown } from "./markdown.mjs";
import { tools } from "./tools.mjs";

let failed = 0;
for (const [name, test] of Object.entries({ ...chat, ...markdown, ...tools })) {
  const begun = Date.now();
  try {
    await test();
    assert.deepEqual(faults, []);
    console.log(`${name}: ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  } catch (error) {
    failed++;
    console.error(`${name}: FAILED\n${error.stack}`);
  }
  faults.splice(0);
  await Promise.all(browser.contexts().map((context) => context.close()));
}
await browser.close();
process.exitCode = failed ? 1 : 0;
