// What stands within a block of Markdown: emphasis, code, links.
import { make } from "./dom.js";

/**
 * A run of `*`, `_` or `~` that may open or close emphasis.
 * @typedef {{ node: Text, mark: string, length: number, count: number, opens: boolean, closes: boolean }} Run
 */

const PUNCTUATION = /[\p{P}\p{S}]/u;
const ADDRESS = /^(?:https?:\/\/|mailto:)[^\s<>"]*$/i;
const ANGLED = /<([^\s<>]+)>/y;
const BARE = /https?:\/\/[^\s<>"`*]+/iy;
const TARGET =
  /\(\s*(?:<([^<>\n]*)>|([^\s()]*(?:\([^\s()]*\)[^\s()]*)*))(?:\s+(?:"[^"\n]{0,300}"|'[^'\n]{0,300}'))?\s*\)/y;

/**
 * The nodes of a text within a block, by CommonMark's method of delimiter runs.
 * @param {string} text
 * @returns {Node[]}
 */
export function inlines(text) {
  const reader = new InlineReader(text);
  while (reader.at < text.length) reader.step();
  reader.flush();
  emphasise(reader.runs)();
  return [...reader.root.childNodes];
}

/** Reads a text from its beginning to its end. */
class InlineReader {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.root = document.createDocumentFragment();
    /** Text that has been read, and is not a node yet. */
    this.plain = "";
    /** @type {Run[]} */
    this.runs = [];
    /** @type {{ node: Text, run: number }[]} brackets that may open a link, each with the number of runs before it */
    this.brackets = [];
    this.ticks = tickRuns(text);
  }

  flush() {
    if (this.plain) this.root.append(this.plain);
    this.plain = "";
  }

  /**
   * Adds a node that `length` characters are.
   * @param {Node} node
   * @param {number} length
   */
  push(node, length) {
    this.flush();
    this.root.append(node);
    this.at += length;
  }

  /**
   * Adds characters that mean themselves.
   * @param {string} text
   * @param {number} [length] how many characters of the source they are
   */
  keep(text, length = text.length) {
    this.plain += text;
    this.at += length;
  }

  /** Reads one character, or one mark. */
  step() {
    const { text, at } = this;
    const [char, next] = [text[at], text[at + 1] ?? ""];
    if (char === "\\" && next === "\n") this.push(make("br"), 2);
    else if (char === "\\" && /[!-/:-@[-`{-~]/.test(next)) this.keep(next, 2);
    else if (char === "\n") this.lineBreak();
    else if (char === "`") this.code();
    else if (char === "*" || char === "_" || (char === "~" && next === "~")) this.run(char);
    else if (char === "[" || (char === "!" && next === "[")) this.openBracket(char === "!" ? "![" : "[");
    else if (char === "]") this.closeBracket();
    else if (char === "<") this.autolink();
    else if (char === "h") this.bareLink();
    else this.keep(char);
  }

  lineBreak() {
    this.plain = this.plain.trimEnd();
    this.push(make("br"), 1);
  }

  code() {
    const length = runLength(this.text, this.at);
    const end = this.ticks(length, this.at + length);
    if (end < 0) return this.keep("`".repeat(length));
    const inner = this.text.slice(this.at + length, end).replaceAll("\n", " ");
    const isPadded = inner.startsWith(" ") && inner.endsWith(" ") && inner.trim();
    this.push(make("code", {}, isPadded ? inner.slice(1, -1) : inner), end + length - this.at);
  }

  /** @param {string} mark */
  run(mark) {
    const length = runLength(this.text, this.at);
    const node = document.createTextNode(mark.repeat(length));
    this.runs.push({ node, mark, length, count: length, ...sides(this.text, this.at, length) });
    this.push(node, length);
  }

  /** @param {string} mark */
  openBracket(mark) {
    const node = document.createTextNode(mark);
    this.brackets.push({ node, run: this.runs.length });
    this.push(node, mark.length);
  }

  closeBracket() {
    const open = this.brackets.pop();
    TARGET.lastIndex = this.at + 1;
    const target = open && TARGET.exec(this.text);
    if (!open || !target) return this.keep("]");
    this.flush();
    emphasise(this.runs.splice(open.run))();
    const nodes = [];
    for (let node = open.node.nextSibling; node; node = node.nextSibling) nodes.push(node);
    const address = target[1] ?? target[2];
    open.node.replaceWith(link(address, nodes.length ? nodes : [address]));
    // A link holds no other.
    if (open.node.data === "[") this.brackets = [];
    this.at += 1 + target[0].length;
  }

  autolink() {
    ANGLED.lastIndex = this.at;
    const address = ANGLED.exec(this.text)?.[1];
    if (address && ADDRESS.test(address)) this.push(link(address, [address]), address.length + 2);
    else this.keep("<");
  }

  bareLink() {
    BARE.lastIndex = this.at;
    const isWord = /\w/.test(this.text[this.at - 1] ?? "");
    const found = isWord || this.brackets.length ? null : BARE.exec(this.text);
    const address = found && bareAddress(found[0]);
    if (address) this.push(link(address, [address]), address.length);
    else this.keep("h");
  }
}

/**
 * An address in a text, without what belongs to the sentence around it.
 * @param {string} found
 */
function bareAddress(found) {
  let end = found.length;
  let unmatched = found.split(")").length - found.split("(").length;
  for (; end > 0; end--) {
    if (found[end - 1] === ")" && unmatched > 0) unmatched--;
    else if (!".,;:!?'\"_~".includes(found[end - 1])) break;
  }
  return found.slice(0, end);
}

/**
 * A link, if its address is one of the web or of mail; other schemes could run a script or open a program.
 * @param {string} address
 * @param {(Node | string)[]} children
 */
function link(address, children) {
  if (!ADDRESS.test(address)) return make("span", { title: address }, ...children);
  return make("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

/** @param {string} text @param {number} at */
function runLength(text, at) {
  let end = at;
  while (text[end] === text[at]) end++;
  return end - at;
}

/**
 * Finds the next run of so many backticks from a place on; -1 if there is none. Places are asked for in order.
 * @param {string} text
 */
function tickRuns(text) {
  /** @type {Map<number, number[]>} */
  const places = new Map();
  for (const run of text.matchAll(/`+/g)) {
    const known = places.get(run[0].length);
    if (known) known.push(run.index);
    else places.set(run[0].length, [run.index]);
  }
  return (/** @type {number} */ length, /** @type {number} */ from) => {
    const known = places.get(length) ?? [];
    while (known.length && known[0] < from) known.shift();
    return known[0] ?? -1;
  };
}

/**
 * Whether a run can open and close emphasis, by the characters around it.
 * @param {string} text
 * @param {number} at
 * @param {number} length
 */
function sides(text, at, length) {
  const before = text[at - 1] ?? " ";
  const after = text[at + length] ?? " ";
  const left = !/\s/.test(after) && (!PUNCTUATION.test(after) || /\s/.test(before) || PUNCTUATION.test(before));
  const right = !/\s/.test(before) && (!PUNCTUATION.test(before) || /\s/.test(after) || PUNCTUATION.test(after));
  if (text[at] !== "_") return { opens: left, closes: right };
  return { opens: left && (!right || PUNCTUATION.test(before)), closes: right && (!left || PUNCTUATION.test(after)) };
}

/**
 * Pairs the runs; the result makes elements of the pairs, once the runs stand where they belong.
 * @param {Run[]} runs
 */
function emphasise(runs) {
  /** @type {{ open: Run, close: Run, tag: string, used: number }[]} */
  const pairs = [];
  /** @type {Run[]} */
  const open = [];
  /** @type {Map<string, number>} below which no opener fits, by closer */
  const bottom = new Map();
  for (const run of runs) {
    while (run.closes && run.count > 0) {
      const kind = `${run.mark}${run.opens}${run.length % 3}`;
      let at = open.length - 1;
      while (at >= (bottom.get(kind) ?? 0) && !fits(open[at], run)) at--;
      if (at < (bottom.get(kind) ?? 0)) {
        bottom.set(kind, open.length);
        break;
      }
      const opener = open[at];
      const used = run.mark === "~" ? 2 : Math.min(2, opener.count, run.count);
      pairs.push({ open: opener, close: run, tag: run.mark === "~" ? "s" : used === 2 ? "strong" : "em", used });
      opener.count -= used;
      run.count -= used;
      open.length = opener.count > 0 ? at + 1 : at;
      for (const [key, value] of bottom) bottom.set(key, Math.min(value, open.length));
    }
    if (run.opens && run.count > 0) open.push(run);
  }
  return () => pairs.forEach(wrap);
}

/** @param {Run} opener @param {Run} closer */
function fits(opener, closer) {
  if (opener.mark !== closer.mark) return false;
  if (closer.mark === "~") return opener.count >= 2 && closer.count >= 2;
  const inside = opener.closes || closer.opens;
  return !inside || (opener.length + closer.length) % 3 !== 0 || (opener.length % 3 === 0 && closer.length % 3 === 0);
}

/** @param {{ open: Run, close: Run, tag: string, used: number }} pair */
function wrap({ open, close, tag, used }) {
  const wrapped = make(tag);
  while (open.node.nextSibling && open.node.nextSibling !== close.node) wrapped.append(open.node.nextSibling);
  open.node.after(wrapped);
  for (const run of [open, close]) run.node.data = run.node.data.slice(used);
}
