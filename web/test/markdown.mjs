// Tests of what a model's Markdown becomes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { answers, checkAccess, converse, faults, here, open, play, text } from "./harness.mjs";

/** What the first code of hostile.txt is. */
const CODE = `"<b>not bold</b>" // <i>\n  if (a < 12 && c) return \`x\`;`;

export const markdown = {
  async "Markdown is shown, and nothing that a model writes becomes HTML"() {
    const page = await open();
    const written = readFileSync(new URL("hostile.txt", here), "utf8");
    // In pieces that cut marks, as a model's tokens do.
    await play(
      page,
      written.match(/[^]{1,7}/g).map((content) => ({ content })),
    );
    await converse(page, "Write.");
    const prose = answers(page).last().locator(".prose").last();
    const allowed = [
      "P",
      "A",
      "BR",
      "CODE",
      "PRE",
      "EM",
      "STRONG",
      "S",
      "UL",
      "OL",
      "LI",
      "TABLE",
      "THEAD",
      "TBODY",
      "TR",
      "TH",
      "TD",
      "H3",
      "H4",
      "H5",
      "H6",
      "BLOCKQUOTE",
      "HR",
      "DIV",
      "SPAN",
      "BUTTON",
      "INPUT",
    ];
    const found = await prose.evaluate((root) =>
      [...root.querySelectorAll("*")].map((e) => [
        e.tagName,
        ...e.getAttributeNames().map((n) => `${n}=${e.getAttribute(n)}`),
      ]),
    );
    for (const [tag, ...attributes] of found) {
      assert(allowed.includes(tag), tag);
      for (const attribute of attributes) {
        assert.match(
          attribute,
          /^(class|tabindex|role|aria-label|title|type|disabled|checked|start|scope|target|rel)=|^href=(https?:\/\/|mailto:)/,
        );
      }
    }
    const links = await prose.locator("a").evaluateAll((all) => all.map((a) => a.getAttribute("href")));
    assert.deepEqual(links, [
      "https://example.com/a_(b)?c=d",
      "https://example.com/picture.png",
      "mailto:a@example.com",
      "https://example.org/bare",
      "https://example.com",
    ]);
    for (const [selector, count] of [
      ["table td", 4],
      ["ol > li", 2],
      ["ol ul li", 2],
      ["pre", 2],
      ["h3", 1],
      ["blockquote p", 1],
      ["strong em, em strong", 1],
      ["s", 1],
      ["hr", 1],
      ["input:checked", 1],
      ["pre .comment", 1],
      ["pre .keyword", 2],
      ["pre .text", 2],
      ["pre .number", 1],
    ]) {
      assert.equal(await prose.locator(selector).count(), count, selector);
    }
    assert.equal(await prose.locator("pre").first().innerText(), CODE);
    assert((await prose.innerText()).includes("<script>window.owned = 1</script>"));
    assert.equal(await page.evaluate(() => window.owned), undefined);
    // The browser itself would refuse.
    assert.equal(
      await page.evaluate(() => {
        try {
          document.body.innerHTML = "<b>x</b>";
          return "made";
        } catch {
          return "refused";
        }
      }),
      "refused",
    );
    faults.splice(0, faults.length, ...faults.filter((fault) => !fault.includes("TrustedHTML")));
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await prose.locator(".code button").first().click();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), CODE);
    await checkAccess(page, "Markdown");
  },

  async "odd Markdown takes no time, and loses no text"() {
    const page = await open();
    const odd = [
      "*".repeat(5000),
      "[".repeat(5000),
      '](x "'.repeat(2000),
      "`".repeat(3) + "a`".repeat(3000),
      ">".repeat(2000),
      "- ".repeat(2000),
      "# " + " ".repeat(5000) + "x",
      "|".repeat(3000) + "\n" + "|-".repeat(3000),
      "a_b*".repeat(3000),
      "1. ".repeat(1000),
      "<".repeat(5000),
      "https://" + ",".repeat(5000) + "x",
      "~~".repeat(3001),
    ];
    const slow = await page.evaluate(async (texts) => {
      const { show } = await import("./web/markdown.js");
      return texts.map((text) => {
        const begun = performance.now();
        const box = document.createElement("div");
        show(box, text);
        return {
          ms: performance.now() - begun,
          letters: box.textContent.replace(/[^a-z]/g, "").length,
          wanted: text.replace(/[^a-z]/g, "").length,
        };
      });
    }, odd);
    for (const [at, { ms, letters, wanted }] of slow.entries()) {
      assert(ms < 2000, `${odd[at].slice(0, 20)}: ${ms} ms`);
      if (!odd[at].includes("](")) assert(letters >= wanted, `${odd[at].slice(0, 20)}: ${letters} of ${wanted}`);
    }
  },
};
