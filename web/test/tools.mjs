// Tests of tools, files, what is kept and given away, a server that is gone, and small screens.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { COMPLETIONS, answers, checkAccess, converse, field, open, play, say, text, until } from "./harness.mjs";

export const tools = {
  async "thoughts are folded, calls are shown, and their results go back as they belong"() {
    const page = await open();
    const call = (part) => ({ tool_calls: [{ index: 0, ...part }] });
    const bodies = await play(
      page,
      [
        { reasoning_content: "Let me " },
        { reasoning_content: "look." },
        { content: "I will look." },
        call({ id: "call_1", function: { name: "weather", arguments: "" } }),
        call({ function: { arguments: '{"city": ' } }),
        call({ function: { arguments: '"Oslo"}' } }),
      ],
      [{ content: "It rains." }],
    );
    const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("Tools that the model may call").fill("[{");
    await page.getByRole("button", { name: "Save" }).click();
    assert(await page.locator("#settings").isVisible());
    await page.getByLabel("Tools that the model may call").fill(JSON.stringify(tools));
    await page.getByLabel("System prompt").fill("Be brief.");
    await page.getByLabel("Temperature").fill("0.25");
    await page.getByLabel("Thoughts").selectOption("on");
    await page.getByLabel("Texts that end an answer").fill("END\n###");
    await checkAccess(page, "settings");
    await page.getByRole("button", { name: "Save" }).click();
    await converse(page, "Weather in Oslo?");
    assert.equal(await page.locator(".assistant .thought .prose").isVisible(), false);
    await page.locator(".assistant .thought summary").click();
    assert.equal(await page.locator(".assistant .thought .prose").innerText(), "Let me look.");
    assert.equal(await page.locator(".call code").innerText(), "weather");
    assert.deepEqual(JSON.parse(await page.locator(".call pre").innerText()), { city: "Oslo" });
    await page.getByLabel("Result of weather").fill("rain");
    await page.getByRole("button", { name: "Give this result" }).click();
    await answers(page).getByText("It rains.").waitFor();
    const { messages, ...fields } = bodies[1];
    assert.deepEqual(messages, [
      { role: "system", content: "Be brief." },
      { role: "user", content: "Weather in Oslo?" },
      {
        role: "assistant",
        content: "I will look.",
        reasoning_content: "Let me look.",
        tool_calls: [{ id: "call_1", type: "function", function: { name: "weather", arguments: '{"city": "Oslo"}' } }],
      },
      { role: "tool", tool_call_id: "call_1", content: "rain" },
    ]);
    assert.deepEqual(fields, {
      temperature: 0.25,
      stop: ["END", "###"],
      tools,
      enable_thinking: true,
      model: "demo",
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    });
    await checkAccess(page, "calls");
  },

  async "files are sent as text, and what is none is refused"() {
    const page = await open({ expected: ["400"] });
    const bodies = await play(page, [{ content: "Read." }]);
    const files = page.locator("#file");
    await files.setInputFiles([
      { name: "a.md", mimeType: "text/markdown", buffer: Buffer.from("one\n```\ntwo\n```\n") },
    ]);
    await files.setInputFiles([
      { name: "b.bin", mimeType: "application/octet-stream", buffer: Buffer.from([0, 159, 146, 150]) },
    ]);
    await page.getByText("b.bin is not a text in UTF-8").waitFor();
    await until(
      "the count",
      () => page.locator("#meter-more").innerText(),
      (words) => /^\d+ to send$/.test(words),
    );
    await converse(page, "What is it?");
    assert.equal(bodies[0].messages[0].content, "a.md:\n````\none\n```\ntwo\n```\n````\n\nWhat is it?");
    await page.locator(".file summary", { hasText: "a.md · 16 B" }).waitFor();
    // What does not fit is told before it is sent, and by the server's own words then.
    await page.unroute(COMPLETIONS);
    await files.setInputFiles([
      { name: "long.txt", mimeType: "text/plain", buffer: Buffer.from("word ".repeat(9000)) },
    ]);
    await page.getByText("begin a new chat, or edit").waitFor();
    await say(page, "And this?");
    await page.locator(".message .problem", { hasText: "prompt is too long" }).waitFor();
  },

  async "conversations are exported, deleted, imported, renamed and found"() {
    const page = await open();
    await converse(page, "Why is grass green?");
    const conversation = page.url();
    const exported = async (name) => {
      await page.getByText("More", { exact: true }).click();
      const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name }).click()]);
      return [download.suggestedFilename(), readFileSync(await download.path(), "utf8")];
    };
    const [markdownName, markdown] = await exported("Export as Markdown");
    assert.equal(markdownName, "Why-is-grass-green.md");
    assert(markdown.startsWith("# Why is grass green?\n\n## You\n\nWhy is grass green?\n\n## demo\n\n"), markdown);
    const [, file] = await exported("Export as JSON");
    await page.getByText("More", { exact: true }).click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await checkAccess(page, "a question");
    await page.locator("#confirm-dialog button[value=yes]").click();
    await page.getByText("No conversations yet.").waitFor();
    const give = (content) =>
      page
        .locator("#import-file")
        .setInputFiles([{ name: "c.json", mimeType: "application/json", buffer: Buffer.from(content) }]);
    await page.getByRole("button", { name: "Settings" }).click();
    for (const [content, words] of [
      ["{", "This file is not JSON."],
      ["{}", "This file has not been exported by this page."],
      [file.replace('"role": "user"', '"role": "root"'), "A conversation of this file is not whole."],
      [file, "1 imported."],
    ]) {
      await give(content);
      await page.locator("#import-words", { hasText: words }).waitFor();
    }
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.goto(conversation);
    await page.locator("#conversations a").click();
    await answers(page).first().waitFor();
    await page.getByText("More", { exact: true }).click();
    await page.getByRole("button", { name: "Rename" }).click();
    await page.getByLabel("Title").fill("Meadows");
    await page.keyboard.press("Enter");
    await page.locator("#conversations a", { hasText: "Meadows" }).waitFor();
    await page.keyboard.press("Control+k");
    await page.keyboard.type("GRASS");
    assert.equal(await page.locator("#conversations a").count(), 1);
    await page.keyboard.type("hopper");
    await page.getByText("Nothing found.").waitFor();
  },

  async "a server that loads or is gone is waited for"() {
    const page = await open({ expected: ["503", "ERR_"] });
    let loads = true;
    await page.route("**/props", (route) =>
      loads
        ? route.fulfill({ status: 503, json: { error: { code: "model_loading", message: "x" } } })
        : route.continue(),
    );
    await page.reload();
    await page.getByText("The model is being loaded. This page waits for it.").waitFor();
    loads = false;
    await page.locator("#server-problem").waitFor({ state: "hidden" });
    await page.route(COMPLETIONS, (route) => route.abort());
    await say(page, "Hello");
    await page.locator(".message .problem", { hasText: "The server cannot be reached." }).waitFor();
    await page.unroute(COMPLETIONS);
    await answers(page).last().getByRole("button", { name: "Retry" }).click();
    await until("an answer", () => answers(page).last().locator(".figures").innerText(), Boolean);
    assert.equal(await page.getByText("2 of 2").count(), 0);
  },

  async "keys do what a mouse does, and a phone is wide enough"() {
    for (const colorScheme of ["light", "dark"]) {
      const page = await open({ colorScheme, viewport: { width: 360, height: 700 } });
      await converse(page, "Hello");
      await field(page).press("ArrowUp");
      await page.getByLabel("Edit the message").press("Escape");
      const fits = async (what) => {
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, what);
        assert.deepEqual(
          await page.evaluate(() =>
            [...document.querySelectorAll("button, a, dt, dd, .foot, #meter-words")]
              .filter(
                (e) =>
                  e.checkVisibility({ visibilityProperty: true }) &&
                  e.getBoundingClientRect().right > 361 &&
                  !e.closest(".wide, pre"),
              )
              .map((e) => e.outerHTML),
          ),
          [],
          what,
        );
        await checkAccess(page, `${what}, ${colorScheme}`);
      };
      await fits("a chat");
      await page.getByRole("button", { name: "Conversations" }).click();
      await page.getByLabel("Search conversations").waitFor();
      await page.keyboard.press("Tab");
      assert.equal(await page.evaluate(() => document.activeElement.textContent), "Hello");
      await checkAccess(page, `conversations, ${colorScheme}`);
      await page.keyboard.press("Escape");
      await page.getByRole("link", { name: "Engine" }).click();
      await page.locator("#model dd").first().waitFor();
      await fits("the engine");
      await page.getByRole("link", { name: "Chat" }).click();
      await page.keyboard.press("Control+Shift+O");
      await page.locator("#welcome").waitFor();
      await fits("a new chat");
    }
  },
};
