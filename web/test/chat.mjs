// Tests of the chat: answers that come, are stopped, repeated, edited and kept; the key; the engine under load.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import {
  COMPLETIONS,
  action,
  answers,
  browser,
  checkAccess,
  converse,
  done,
  field,
  here,
  key,
  keyedUrl,
  open,
  say,
  text,
  until,
  url,
  writeLong,
} from "./harness.mjs";

export const chat = {
  async "what is served is what web/ holds"() {
    for (const name of readdirSync(new URL("..", here)).filter((name) => /\.(html|css|js|svg)$/.test(name))) {
      const at = name === "index.html" ? url : `${url}/web/${name}`;
      const served = Buffer.from(await (await fetch(at, { headers: { accept: "text/html" } })).arrayBuffer());
      assert(served.equals(readFileSync(new URL(`../${name}`, here))), `${name} is another: build the program anew`);
    }
  },

  async "an answer comes piece by piece, and says what it cost"() {
    const page = await open();
    await writeLong(page, 400);
    await say(page, "Tell me a long story.");
    await action(page, "Stop").waitFor();
    const lengths = new Set();
    await until(
      "a third length",
      async () => lengths.add((await text(page)).length),
      (seen) => seen.size > 3,
    );
    await done(page);
    assert((await text(page)).length > 500);
    assert.match(
      await answers(page).last().locator(".figures").innerText(),
      /^400 tokens · [\d.,]+ tokens\/s · first after [\d.]+ s · \d+ of \d+ prompt tokens cached.* · ended at its limit$/,
    );
    assert.match(await page.locator("#meter-words").innerText(), /^4\d\d of 4,096 tokens$/);
    assert.match(await page.locator("#meter-more").innerText(), /^\d+ were cached$/);
    // Screen readers are told the paragraphs as they come, and the end.
    assert.match(await page.locator("#announcements").innerText(), /^(.+\n+){3,}The answer is complete\.$/);
  },

  async "two tabs have one conversation, and neither loses what the other has added"() {
    const page = await open();
    await converse(page, "Say hello.");
    const other = await page.context().newPage();
    await other.goto(page.url());
    await answers(other).first().waitFor();
    await converse(other, "And what is the sea?");
    const told = async (one) => (await one.locator(".message.user").allInnerTexts()).join();
    const both = (words) => words.includes("Say hello.") && words.includes("the sea");
    await until("the other tab's question", () => told(page), both);
    await converse(page, "And the sky?");
    await until("the first tab's question", () => told(other), (words) => both(words) && words.includes("the sky"));
    // What one deletes is gone in both.
    await page.getByText("More", { exact: true }).click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.locator("#confirm-dialog button[value=yes]").click();
    await other.getByText("No conversations yet.").waitFor();
    await until("an empty page", () => answers(other).count(), (count) => count === 0);
    await page.context().close();
  },

  async "an answer is stopped, which frees the engine, and goes on from there"() {
    const page = await open();
    await writeLong(page);
    const running = async () =>
      Number((await (await fetch(`${url}/metrics`)).text()).match(/^vllm:num_requests_running\{.*\} (\d+)$/m)[1]);
    await say(page, "Tell me of the sea.");
    await until(
      "some text",
      () => text(page),
      (so) => so.length > 40,
    );
    assert.equal(await until("a request", running, (count) => count > 0), 1);
    await page.keyboard.press("Escape");
    await done(page);
    await until("an idle engine", running, (count) => count === 0, 5);
    const before = await text(page);
    await page.unroute(COMPLETIONS);
    await writeLong(page, 40);
    await page.getByRole("button", { name: "Continue" }).click();
    await until(
      "more text",
      () => text(page),
      (so) => so.length > before.length,
    );
    await done(page);
    assert((await text(page)).startsWith(before.trimEnd()));
    assert.equal(await answers(page).count(), 1);
  },

  async "a repeated answer and an edited question stand beside the earlier ones, after a reload too"() {
    const page = await open();
    await converse(page, "Why is the sky blue?");
    await converse(page, "And the sea?");
    await answers(page).last().getByRole("button", { name: "Retry" }).click();
    await answers(page).last().getByText("2 of 2").waitFor();
    await done(page);
    assert(await answers(page).last().locator(".figures").innerText());
    const second = page.locator(".message.user").last();
    await second.getByRole("button", { name: "Edit" }).click();
    await page.getByLabel("Edit the message").fill("And the grass?");
    await page.getByLabel("Edit the message").press("Enter");
    await second.getByText("2 of 2").waitFor();
    await done(page);
    await until("an answer", () => answers(page).last().locator(".figures").innerText(), Boolean);
    const said = async () => (await page.locator(".said, .message.assistant .prose").allInnerTexts()).filter(Boolean);
    const [edited, shown] = [await second.locator(".said").innerText(), await said()];
    assert.equal(edited, "And the grass?");
    await page.reload();
    await second.waitFor();
    assert.deepEqual(await said(), shown);
    await second.getByRole("button", { name: "Earlier version" }).click();
    assert.equal(await second.locator(".said").innerText(), "And the sea?");
    await answers(page).last().getByText("2 of 2").waitFor();
    await page.locator("#conversations a", { hasText: "Why is the sky blue?" }).waitFor();
  },

  async "a reload in the middle of an answer keeps all that had come of it"() {
    const page = await open();
    await writeLong(page);
    await say(page, "Tell me of the moon.");
    const { length } = await until(
      "some text",
      () => text(page),
      (so) => so.length > 100,
    );
    await page.reload();
    const kept = await until("the kept text", () => text(page), Boolean);
    assert(kept.length >= length, `${kept.length} of ${length} characters`);
    await page.getByRole("button", { name: "Continue" }).waitFor();
  },

  async "a conversation that is deleted while it is answered stays away"() {
    const page = await open();
    await writeLong(page);
    await say(page, "Tell me of the wind.");
    await until("some text", () => text(page), Boolean);
    await page.getByText("More", { exact: true }).click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.locator("#confirm-dialog button[value=yes]").click();
    await page.getByText("No conversations yet.").waitFor();
    await page.reload();
    await page.getByText("No conversations yet.").waitFor();
  },

  async "the key is asked for, and kept"() {
    const page = await open({ at: keyedUrl, expected: ["401"] });
    const dialog = page.locator("#key-dialog");
    await dialog.waitFor();
    await checkAccess(page, "the dialog for the key");
    const give = async (value) => {
      await page.getByRole("textbox", { name: "API key" }).fill(value);
      await page.keyboard.press("Enter");
    };
    await give("wrong");
    await page.getByText("The key that this browser has is wrong.").waitFor();
    await give(key);
    await dialog.waitFor({ state: "hidden" });
    await converse(page, "Hello");
    assert(await text(page));
    await page.reload();
    await answers(page).first().waitFor();
    await converse(page, "Hello again");
    assert(!(await dialog.isVisible()));
    // The page counts tokens by itself. A count that is under way when the key is forgotten is refused, and so is the
    // next try, which has no key.
    let refuse;
    const forgotten = new Promise((resolve) => (refuse = resolve));
    const refusal = (route) => forgotten.then(() => route.fulfill({ status: 401, json: {} }));
    await page.route("**/tokenize", refusal, { times: 1 });
    const counted = page.waitForRequest("**/tokenize");
    await field(page).fill("Hello?");
    await counted;
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Forget the API key" }).click();
    const refused = page.waitForResponse((response) => !response.request().headers().authorization);
    refuse();
    assert.equal((await refused).status(), 401);
    await page.waitForTimeout(100);
    assert(!(await dialog.isVisible()), "the key is asked for over the settings");
    await page.getByRole("button", { name: "Cancel" }).click();
    await dialog.waitFor();
  },

  async "the engine's view moves with the load"() {
    const page = await open({ at: url });
    await page.getByRole("link", { name: "Engine" }).click();
    const fact = (name) => page.locator(`dt:text-is("${name}") + dd`).innerText();
    const shown = (selector) => page.locator(selector).innerText();
    await until(
      "an idle engine",
      () => fact("Running"),
      (value) => value.startsWith("0 of"),
    );
    const before = Number((await fact("Answers so far")).replaceAll(",", ""));
    const body = (number) =>
      JSON.stringify({
        messages: [{ role: "user", content: `${number}: ${"Of ships and shoes and sealing wax. ".repeat(40)}` }],
        ignore_eos: true,
        max_tokens: 900,
        seed: number,
      });
    const load = [1, 2, 3].map((number) =>
      fetch(`${url}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: body(number),
      }),
    );
    await until(
      "three that run",
      () => fact("Running"),
      (value) => value.startsWith("3 of"),
    );
    await until(
      "held tokens",
      () => shown("#pool"),
      (value) => /held [1-9]/.test(value.replaceAll("\n", " ")),
    );
    await until(
      "a speed of decoding",
      () => page.locator("figure:has(.decode) b").innerText(),
      (value) => parseFloat(value) > 0,
    );
    await until(
      "three prompts",
      () => page.locator("#prefixes tr").count(),
      (rows) => rows >= 3,
    );
    await until(
      "a speed of prefill",
      () => page.locator("figure:has(.prefill) .most").innerText(),
      (value) => parseFloat(value.slice(8)) > 0,
    );
    assert((await page.locator("#prefixes").innerText()).match(/cold|diverged at token \d+|all that was known/));
    for (const answer of await Promise.all(load)) assert.equal(answer.status, 200);
    await until(
      "an idle engine",
      () => fact("Running"),
      (value) => value.startsWith("0 of"),
    );
    await until(
      "three more answers",
      () => fact("Answers so far"),
      (value) => Number(value.replaceAll(",", "")) >= before + 3,
    );
    await until(
      "cached tokens",
      () => shown("#pool"),
      (value) => /cached [1-9]/.test(value.replaceAll("\n", " ")),
    );
    for (const [id, words] of [
      ["#memory", "this server"],
      ["#quality", "near-lossless"],
      ["#model", "4,096 tokens"],
      ["#memory-facts", "Weights"],
    ]) {
      assert((await shown(id)).includes(words), `${id}: ${await shown(id)}`);
    }
    await checkAccess(page, "the engine");
    await page.getByRole("button", { name: "Forget what is cached" }).click();
    await until(
      "an empty cache",
      () => shown("#pool"),
      (value) => /cached 0/.test(value.replaceAll("\n", " ")),
    );
  },
};
