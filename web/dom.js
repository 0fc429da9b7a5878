// Elements are made here and nowhere from a text, so that nothing that a model or a file says becomes markup. The
// server's content security policy ("require-trusted-types-for") has the browser refuse any other way.

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Sets attributes of an element. A function is a listener, `true` an attribute without a value, and `null`, `false` and
 * `undefined` leave an attribute away.
 * @template {Element} T
 * @param {T} element
 * @param {Record<string, any>} attributes
 * @returns {T}
 */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return element;
}

/**
 * Makes an element. `name` is a tag with classes, such as `button.quiet`.
 * @param {string} name
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {any} an element of that tag
 */
export function make(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  fill(set(element, attributes), ...children);
  return element;
}

/**
 * Makes an element of a drawing.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 */
export function draw(tag, attributes = {}, ...children) {
  const element = set(document.createElementNS(SVG, tag), attributes);
  element.append(...children.filter(isShown).map(String));
  return element;
}

/**
 * Gives an element these children in place of those that it has.
 * @param {Element} element
 * @param {...Child} children
 */
export function fill(element, ...children) {
  element.replaceChildren(.../** @type {any} */ (children.filter(isShown)));
}

/** @param {Child} child */
function isShown(child) {
  return child !== null && child !== undefined && child !== false;
}

/**
 * The element of the page with this id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * A button with a text.
 * @param {string} text
 * @param {(event: Event) => void} click
 * @param {Record<string, any>} [attributes]
 * @returns {HTMLButtonElement}
 */
export function button(text, click, attributes = {}) {
  return make("button.quiet", { type: "button", click, ...attributes }, text);
}

/**
 * A button that copies what `text` gives, and says for a moment that it has.
 * @param {() => string} text
 * @param {string} what what is copied, for those who do not see where the button stands
 */
export function copyButton(text, what) {
  const copy = button("Copy", async () => {
    let done = "Copied";
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      // Browsers have a clipboard for pages of this machine and of HTTPS alone.
      done = copyBySelection(text()) ? "Copied" : "Not copied";
    }
    say(done);
    setTimeout(say, 1500, "Copy");
  });
  const say = (/** @type {string} */ words) => set(copy, { "aria-label": `${words} ${what}` }).replaceChildren(words);
  say("Copy");
  return copy;
}

/** @param {string} text */
function copyBySelection(text) {
  const area = make("textarea.hidden");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/**
 * Has the browser save a text as a file.
 * @param {string} name
 * @param {string} type
 * @param {string} text
 */
export function save(name, type, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const announced = () => byId("announcements");

/**
 * Has screen readers say a text when they have said what they are saying.
 * @param {string} text
 */
export function announce(text) {
  const log = announced();
  log.append(make("p", {}, text));
  while (log.childElementCount > 20) log.firstElementChild.remove();
}

/**
 * A number with separators of thousands, or `-` where there is none.
 * @param {number | null | undefined} value
 * @param {number} [digits] places behind the point
 */
export function number(value, digits = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/**
 * A size in words.
 * @param {number | null | undefined} value bytes
 */
export function bytes(value) {
  if (value === null || value === undefined) return "-";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const unit = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(value, 1)) / 10));
  const scaled = value / 2 ** (10 * unit);
  return `${number(scaled, scaled < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}
