// Takes the pictures of docs/, of a running server.
import { browser, converse, field, open, pictures, text, url } from "./harness.mjs";

/** Takes a picture of what `act` does with a page. */
async function picture(name, context, act) {
  const page = await open(context);
  const rest = await act(page);
  await page.screenshot({ path: `${pictures}/${name}.png` });
  await rest?.ended;
}

const chat = async (page) => {
  await converse(page, "Write a Python function that finds the longest word of a text. The code alone.");
  await field(page).fill("What if two words are as long?");
  await page.waitForTimeout(1000);
  await page.evaluate(() => document.querySelector("#chat-scroll").scrollTo(0, 0));
};
await picture("page-light", { viewport: { width: 880, height: 540 }, colorScheme: "light" }, chat);
await picture("page-phone", { viewport: { width: 360, height: 560 }, colorScheme: "dark" }, chat);
await picture("page-dark", { viewport: { width: 880, height: 540 }, colorScheme: "dark" }, async (page) => {
  await page.getByRole("link", { name: "Engine" }).click();
  const ask = (number, more = {}) =>
    fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        messages: [{ role: "user", content: `${"Of ships and shoes and sealing wax. ".repeat(6 * number)}${number}?` }],
        max_tokens: 24 * number,
        ...more,
      }),
    });
  for (let round = 0; round < 5; round++) {
    await Promise.all([1, 2, 3].map((number) => ask(number + (round % 4))));
    await page.waitForTimeout(300 * (round % 3));
  }
  const last = Promise.all([8, 9, 10].map((number) => ask(number, { ignore_eos: true, max_tokens: 60 })));
  await page.waitForTimeout(4000);
  return { ended: last };
});
await browser.close();
