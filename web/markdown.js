// Markdown as models write it (CommonMark's blocks and inlines, tables, struck text), made into elements. There is no
// HTML in it: tags are shown as the text that they are. Images are shown as links, since the page loads nothing from
// elsewhere. What is not Markdown is text, so that nothing is ever lost.
import { copyButton, make } from "./dom.js";
import { highlight } from "./highlight.js";
import { inlines } from "./inlines.js";

/** Lists and quotes within each other are read to this depth; what is deeper is shown as text. */
const DEPTH = 12;

/**
 * @typedef {object} Block
 * @property {"paragraph" | "heading" | "code" | "quote" | "list" | "table" | "rule"} kind
 * @property {string} source the lines that it was made of
 * @property {string[]} lines
 * @property {number} [level] of a heading
 * @property {string} [info] of code, what stands behind the fence
 * @property {string[][]} [items] of a list, the lines of each
 * @property {number} [start] of a numbered list
 */

const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)(.*)$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:([ \t]+)(.*)|)$/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/**
 * Shows a text in `container`. Blocks that are as they were keep their elements, so that a text that grows costs what is
 * new in it, and a selection in the rest stays. Gives the texts of the blocks; the last one may still grow.
 * @param {HTMLElement & { shown?: { source: string, element: HTMLElement }[] }} container
 * @param {string} text
 */
export function show(container, text) {
  const before = container.shown ?? [];
  const levels = { last: 2 };
  const shown = blocks(text.split("\n")).map((block, at) => {
    const known = before[at];
    if (known?.source === block.source) {
      if (block.level) levels.last = Number(known.element.tagName[1]);
      return known;
    }
    const made = { source: block.source, element: element(block, levels, 0) };
    if (known) known.element.replaceWith(made.element);
    else container.append(made.element);
    return made;
  });
  before.slice(shown.length).forEach((gone) => gone.element.remove());
  container.shown = shown;
  return shown.map(({ element }) => (element.querySelector("pre") ?? element).textContent ?? "");
}

/**
 * The blocks of some lines.
 * @param {string[]} lines
 * @returns {Block[]}
 */
function blocks(lines) {
  /** @type {Block[]} */
  const found = [];
  let at = 0;
  /** @param {Block["kind"]} kind @param {number} end @param {Partial<Block>} more */
  const push = (kind, end, more) => {
    found.push({ kind, source: lines.slice(at, end).join("\n"), lines: [], ...more });
    at = end;
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(FENCE);
    const heading = line.match(HEADING);
    if (!line.trim()) at++;
    else if (fence) pushCode(lines, at, fence, push);
    else if (heading) push("heading", at + 1, { level: heading[1].length, lines: [headingText(heading[2])] });
    else if (RULE.test(line)) push("rule", at + 1, {});
    else if (QUOTE.test(line)) {
      const end = endOf(lines, at, (next) => QUOTE.test(next) || !beginsBlock(next));
      push("quote", end, { lines: lines.slice(at, end).map((quoted) => quoted.replace(QUOTE, "")) });
    } else if (ITEM.test(line)) pushList(lines, at, push);
    else if (/^( {4}|\t)/.test(line)) {
      let end = at;
      while (end < lines.length && (/^( {4}|\t)/.test(lines[end]) || !lines[end].trim())) end++;
      const code = lines.slice(at, end).map((indented) => indented.replace(/^( {4}|\t)/, ""));
      while (!code.at(-1)?.trim()) code.pop();
      push("code", end, { lines: code, info: "" });
    } else if (
      line.includes("|") &&
      DELIMITERS.test(lines[at + 1] ?? "") &&
      (lines[at + 1] ?? "").includes("-") &&
      cells(line).length === cells(lines[at + 1]).length
    ) {
      const end = endOf(lines, at + 2, (next) => !beginsBlock(next));
      push("table", end, { lines: lines.slice(at, end) });
    } else {
      const end = endOf(lines, at + 1, (next) => !beginsBlock(next));
      push("paragraph", end, { lines: lines.slice(at, end).map((text) => text.replace(/^[ \t]+/, "")) });
    }
  }
  return found;
}

/**
 * Where a block ends whose lines go on as long as they are not empty and `goesOn` says so.
 * @param {string[]} lines
 * @param {number} at
 * @param {(line: string) => boolean} goesOn
 */
function endOf(lines, at, goesOn) {
  while (at < lines.length && lines[at].trim() && goesOn(lines[at])) at++;
  return at;
}

/**
 * A heading's text without the marks that may close it.
 * @param {string} rest
 */
function headingText(rest) {
  const text = rest.trim();
  let end = text.length;
  while (text[end - 1] === "#") end--;
  return end === 0 || /[ \t]/.test(text[end - 1]) ? text.slice(0, end).trim() : text;
}

/** @param {string} line */
function beginsBlock(line) {
  const item = line.match(ITEM);
  // A number within a paragraph begins a list only where it is 1.
  const isItem = item && item[4]?.trim() && (/^[-*+]/.test(item[2]) || parseInt(item[2], 10) === 1);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || Boolean(isItem);
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {RegExpMatchArray} fence
 * @param {(kind: Block["kind"], end: number, more: Partial<Block>) => void} push
 */
function pushCode(lines, at, [, indent, marks, info], push) {
  const isEnd = (/** @type {string} */ line) => {
    const end = line.trim();
    return end.length >= marks.length && end === marks[0].repeat(end.length);
  };
  let end = at + 1;
  while (end < lines.length && !isEnd(lines[end])) end++;
  const strip = new RegExp(`^ {0,${indent.length}}`);
  push("code", Math.min(end + 1, lines.length), {
    lines: lines.slice(at + 1, end).map((line) => line.replace(strip, "")),
    info: info.trim().split(/\s/)[0],
  });
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {(kind: Block["kind"], end: number, more: Partial<Block>) => void} push
 */
function pushList(lines, at, push) {
  const first = /** @type {RegExpMatchArray} */ (lines[at].match(ITEM));
  const kind = first[2].at(-1);
  /** @type {string[][]} */
  const items = [];
  let width = 0;
  let end = at;
  while (end < lines.length) {
    const line = lines[end];
    const item = line.match(ITEM);
    const indent = (line.match(/^ */) ?? [""])[0].length;
    if (items.length && line.trim() && indent >= width) items.at(-1)?.push(line.slice(width));
    else if (item && item[2].at(-1) === kind && !RULE.test(line)) {
      const space = item[3]?.length ?? 1;
      // Behind five spaces or more the item begins with indented code.
      width = item[1].length + item[2].length + (space > 4 ? 1 : space);
      items.push([line.slice(width)]);
    } else if (!line.trim()) {
      const next = lines[end + 1] ?? "";
      const goesOn =
        (next.match(/^ */) ?? [""])[0].length >= width || next.match(ITEM)?.[2].at(-1) === kind || !next.trim();
      if (!goesOn) break;
      items.at(-1)?.push("");
    } else if (beginsBlock(line) || items.at(-1)?.at(-1) === "") break;
    else items.at(-1)?.push(line);
    end++;
  }
  push("list", end, { items, start: /\d/.test(first[2]) ? parseInt(first[2], 10) : undefined });
}

/**
 * @param {Block} block
 * @param {{ last: number }} levels the level of the last heading
 * @param {number} depth
 * @returns {HTMLElement}
 */
function element(block, levels, depth) {
  const text = block.lines.join("\n");
  switch (block.kind) {
    case "heading":
      // A message is below headings of the page; no level is passed over, by which screen readers find their way.
      levels.last = Math.min((block.level ?? 1) + 2, levels.last + 1, 6);
      return make(`h${levels.last}`, {}, ...inlines(text));
    case "rule":
      return make("hr");
    case "code":
      return code(text, block.info ?? "");
    case "quote":
      return make("blockquote", {}, ...nested(block.lines, levels, depth));
    case "table":
      return table(block.lines);
    case "list": {
      const items = block.items ?? [];
      const isLoose = items.some((item) => item.slice(0, -1).includes(""));
      const tag = block.start === undefined ? "ul" : "ol";
      return make(tag, { start: block.start }, ...items.map((item) => listItem(item, isLoose, levels, depth)));
    }
    default:
      return make("p", {}, ...inlines(text));
  }
}

/**
 * @param {string[]} lines
 * @param {{ last: number }} levels
 * @param {number} depth
 */
function nested(lines, levels, depth) {
  if (depth >= DEPTH) return [make("p", {}, lines.join("\n"))];
  return blocks(lines).map((block) => element(block, levels, depth + 1));
}

/**
 * @param {string[]} lines
 * @param {boolean} isLoose whether there are empty lines in the list
 * @param {{ last: number }} levels
 * @param {number} depth
 */
function listItem(lines, isLoose, levels, depth) {
  const task = lines[0].match(/^\[([ xX])\] +/);
  const box =
    task && make("input", { type: "checkbox", disabled: true, checked: task[1] !== " ", "aria-label": "Done" });
  const inner = nested(task ? [lines[0].slice(task[0].length), ...lines.slice(1)] : lines, levels, depth);
  const first = inner[0];
  if (!isLoose && first?.tagName === "P") inner.splice(0, 1, ...first.childNodes);
  return make("li", {}, box, ...inner);
}

/** @param {string} text @param {string} language */
function code(text, language) {
  const head = make(
    "div.code-head",
    {},
    make("span", {}, language),
    copyButton(() => text, "code"),
  );
  return make("div.code", {}, head, make("pre", { tabindex: 0 }, make("code", {}, ...highlight(text, language))));
}

/** @param {string[]} lines */
function table(lines) {
  const sides = cells(lines[1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
  const row = (/** @type {string} */ line, /** @type {string} */ tag) => {
    const texts = cells(line);
    const scope = tag === "th" ? "col" : null;
    return make(
      "tr",
      {},
      ...sides.map((side, at) => make(tag, { scope, class: side || null }, ...inlines(texts[at] ?? ""))),
    );
  };
  const body = lines.slice(2).map((line) => row(line, "td"));
  const grid = make("table", {}, make("thead", {}, row(lines[0], "th")), make("tbody", {}, ...body));
  return make("div.wide", { tabindex: 0, role: "region", "aria-label": "Table" }, grid);
}

/**
 * The texts of a table's row, which stand between bars. A bar behind a backslash or within code is text.
 * @param {string} line
 */
function cells(line) {
  const row = line
    .trim()
    .replace(/^\|/, "")
    .replace(/\|$/, (bar, at, all) => (all[at - 1] === "\\" ? bar : ""));
  const found = [""];
  let inCode = false;
  for (let at = 0; at < row.length; at++) {
    if (row[at] === "\\" && row[at + 1] === "|") found[found.length - 1] += row[++at];
    else if (row[at] === "|" && !inCode) found.push("");
    else {
      if (row[at] === "`") inCode = !inCode && row.indexOf("`", at + 1) > at;
      found[found.length - 1] += row[at];
    }
  }
  return found.map((cell) => cell.trim());
}
