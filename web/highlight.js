// Comments, texts, numbers and keywords of code, told apart by rules that most languages share. What a rule does not
// know stays as it is, so that code of any language is whole.
import { make } from "./dom.js";

/** Languages by how their comments begin. */
const LANGUAGES = {
  "//": "c cc cpp c++ cs csharp cuda dart go java javascript js json jsonc jsx kotlin metal php rs rust scala swift ts tsx typescript zig",
  "#": "bash dockerfile elixir julia make makefile perl powershell py python r rb ruby sh shell toml yaml yml zsh",
  "--": "haskell hs lua sql",
};

const KEYWORDS = new Set(
  `abstract and as assert async await begin bool boolean break case catch char class const continue crate def
default defer del delete do done double elif else elsif end enum export extends extern false False final finally float fn for foreach
from func function global go goto if impl implements import in include int interface is lambda let local long loop match mod module
move mut namespace new nil None not null nullptr operator or package pass private protected public pub raise ref return self Self
short signed sizeof static string struct super switch template then this throw trait true True try type typedef typeof undefined
union unless unsafe unsigned until use using val var virtual void volatile when where while with yield select insert update create
table join left right inner outer on group by order having limit values into set distinct`.split(/\s+/),
);

/** @param {string} comment how a comment begins @param {boolean} isRust whose `'a` is no text */
function rules(comment, isRust) {
  const comments = { "//": "//.*|/\\*[^]*?(?:\\*/|$)", "#": "#.*", "--": "--.*" }[comment];
  const single = isRust ? "'(?:\\\\[^'\\n]+|[^'\\\\\\n])'" : "'(?:\\\\.|[^'\\\\\\n])*'?";
  const texts = `"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\\\[^]|[^"\\\\\\n])*"?|${single}|\`(?:\\\\[^]|[^\`\\\\])*\`?`;
  return new RegExp(`(${comments})|(${texts})|(\\b\\d[\\w.]*)|([A-Za-z_$][\\w$]*)`, "g");
}

/**
 * The nodes of a text in a language.
 * @param {string} text
 * @param {string} language as it stands behind a fence
 * @returns {(Node | string)[]}
 */
export function highlight(text, language) {
  const name = language.toLowerCase();
  const known = Object.entries(LANGUAGES).find(([, names]) => name && names.split(" ").includes(name));
  if (!known) return [text];
  /** @type {(Node | string)[]} */
  const nodes = [];
  let plain = 0;
  for (const found of text.matchAll(rules(known[0], name === "rust" || name === "rs"))) {
    const [whole, comment, quoted, digits, word] = found;
    const isKeyword = word && KEYWORDS.has(known[0] === "--" ? word.toLowerCase() : word);
    const kind = comment ? "comment" : quoted ? "text" : digits ? "number" : isKeyword && "keyword";
    if (!kind) continue;
    nodes.push(text.slice(plain, found.index), make(`span.${kind}`, {}, whole));
    plain = found.index + whole.length;
  }
  nodes.push(text.slice(plain));
  return nodes;
}
