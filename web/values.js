// Small texts that the browser keeps: the API key, the last settings. Where it keeps nothing for this page, they last as
// long as the page.

/** @type {Map<string, string>} */
const here = new Map();

/**
 * The text of this name; empty where there is none.
 * @param {string} name
 */
export function recall(name) {
  try {
    return localStorage.getItem(name) ?? "";
  } catch {
    return here.get(name) ?? "";
  }
}

/**
 * Keeps a text; an empty one is forgotten.
 * @param {string} name
 * @param {string} text
 */
export function remember(name, text) {
  here.set(name, text);
  try {
    if (text) localStorage.setItem(name, text);
    else localStorage.removeItem(name);
  } catch {
    // It is kept above.
  }
}
