// Requests to the server that this page came from. Paths are relative, so that the page works behind a proxy that
// serves it below a path.

import { recall, remember } from "./values.js";

const KEY = "tallow.key";

/** What a request that failed is told. */
export class Refusal extends Error {
  /**
   * @param {number} status 0 where there was no answer
   * @param {string} code
   * @param {string} message
   * @param {number} [retryAfter] seconds
   */
  constructor(status, code, message, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** @type {() => Promise<string>} */
let askForKey = async () => "";
/** @type {Promise<string> | null} */
let asking = null;

/**
 * Says how the reader is asked for the API key.
 * @param {() => Promise<string>} ask
 */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** The API key that this browser keeps; empty where it has none. */
export function key() {
  return recall(KEY);
}

/** @param {string} value */
export function keepKey(value) {
  remember(KEY, value);
}

/**
 * Sends a request, and asks for the API key as often as the server wants another one. Several requests ask once.
 * @param {string} path
 * @param {{ method?: string, body?: any, signal?: AbortSignal }} [options] with a body the method is POST
 * @returns {Promise<Response>} an answer with status 200
 */
export async function send(path, { method, body, signal } = {}) {
  for (;;) {
    const sent = key();
    /** @type {Record<string, string>} */
    const headers = sent ? { authorization: `Bearer ${sent}` } : {};
    if (body !== undefined) headers["content-type"] = "application/json";
    let answer;
    try {
      answer = await fetch(new URL(path, document.baseURI), {
        method: method ?? (body === undefined ? "GET" : "POST"),
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refusal(0, "unreachable", "The server cannot be reached. Is it still running?");
    }
    if (answer.ok) return answer;
    if (answer.status !== 401) throw await refusal(answer);
    // Another request may have been told a new key meanwhile.
    if (key() !== sent) continue;
    asking ??= askForKey().finally(() => (asking = null));
    keepKey(await asking);
  }
}

/** @param {Response} answer */
async function refusal(answer) {
  const { error } = await answer.json().catch(() => ({ error: null }));
  const message = error?.message ?? `The server answered with status ${answer.status}.`;
  return new Refusal(answer.status, error?.code ?? "", message, Number(answer.headers.get("retry-after")) || undefined);
}

/**
 * The JSON of an answer.
 * @param {string} path
 * @param {{ method?: string, body?: any, signal?: AbortSignal }} [options]
 * @returns {Promise<any>}
 */
export async function ask(path, options) {
  return (await send(path, options)).json();
}

/**
 * The data of an answer's server-sent events, as JSON.
 * @param {Response} answer
 * @returns {AsyncGenerator<any>}
 */
export async function* events(answer) {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let isWhole = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        // Lines that begin with a colon are sent so that the connection is kept.
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") isWhole = true;
        else yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!isWhole) throw new Refusal(0, "cut_off", "The connection ended before the answer did.");
}
