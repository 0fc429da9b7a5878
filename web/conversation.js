// A conversation is a tree of messages: an edited question and a repeated answer stand beside the earlier one, and what
// is shown is one path from the root to a leaf.

/**
 * @typedef {{ name: string, text: string }} AttachedFile
 * @typedef {{ id: string, name: string, arguments: string }} ToolCall
 * @typedef {{ prompt: number, cached: number, answer: number, thought: number }} Usage tokens
 * @typedef {{ first?: number, last?: number }} Timing milliseconds from when the request was sent
 * @typedef {object} Message
 * @property {string} id
 * @property {string | null} parent the message before; null for the first
 * @property {"user" | "assistant" | "tool"} role
 * @property {string} text
 * @property {number} created milliseconds since 1970
 * @property {AttachedFile[]} [files]
 * @property {string} [thought]
 * @property {ToolCall[]} [calls]
 * @property {string} [callId] the call that a tool's message answers
 * @property {"running" | "done" | "stopped" | "length" | "failed"} [state] of an answer
 * @property {string} [error]
 * @property {string} [model]
 * @property {Usage} [usage]
 * @property {Timing} [timing]
 * @property {string} [miss] why more of the prompt was not in the cache
 *
 * @typedef {object} Settings what is empty is left to the model
 * @property {string} [system]
 * @property {string} [model]
 * @property {"" | "on" | "off"} [thinking]
 * @property {string} [tools] JSON
 * @property {string} [stop] one string a line
 * @property {Record<string, number>} [sampling]
 *
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} title
 * @property {number} created
 * @property {number} updated
 * @property {Settings} settings
 * @property {Record<string, Message>} messages
 * @property {Record<string, string>} shown the child that is shown of each message; of "" the first one
 */

/** @param {Settings} settings @returns {Conversation} */
export function begin(settings) {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, settings, messages: {}, shown: {} };
}

export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36).padStart(2, "0")).join("");
}

/**
 * Adds a message behind `parent`, and shows it.
 * @param {Conversation} conversation
 * @param {string | null} parent
 * @param {Partial<Message> & { role: Message["role"] }} message
 * @returns {Message}
 */
export function add(conversation, parent, message) {
  const added = { text: "", ...message, id: newId(), parent, created: Date.now() };
  conversation.messages[added.id] = added;
  conversation.shown[parent ?? ""] = added.id;
  conversation.updated = added.created;
  if (!conversation.title && added.role === "user") conversation.title = titleOf(added);
  return added;
}

/** @param {Message} message */
function titleOf(message) {
  const text = message.text.trim().split("\n")[0] || message.files?.[0]?.name || "Conversation";
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

/**
 * The messages that are shown, the first one first.
 * @param {Conversation} conversation
 * @returns {Message[]}
 */
export function path(conversation) {
  const messages = [];
  let at = conversation.messages[conversation.shown[""]];
  while (at) {
    messages.push(at);
    at = conversation.messages[conversation.shown[at.id]];
  }
  return messages;
}

/**
 * The versions of a message, this one included, the oldest first.
 * @param {Conversation} conversation
 * @param {Message} message
 */
export function versions(conversation, message) {
  const all = Object.values(conversation.messages).filter((other) => other.parent === message.parent);
  return all.sort((a, b) => a.created - b.created);
}

/**
 * The messages up to `last` as the server takes them.
 * @param {Conversation} conversation
 * @param {string | null} last
 */
export function toSend(conversation, last) {
  /** @type {any[]} */
  const sent = [];
  for (
    let at = last === null ? undefined : conversation.messages[last];
    at;
    at = conversation.messages[at.parent ?? ""]
  ) {
    sent.unshift(form(at));
  }
  const { system } = conversation.settings;
  if (system) sent.unshift({ role: "system", content: system });
  return sent;
}

/** @param {Message} message */
function form(message) {
  if (message.role === "user") return { role: "user", content: withFiles(message) };
  if (message.role === "tool") return { role: "tool", tool_call_id: message.callId, content: message.text };
  /** @type {any} */
  const sent = { role: "assistant", content: message.text };
  if (message.thought) sent.reasoning_content = message.thought;
  if (message.calls?.length) {
    sent.tool_calls = message.calls.map(({ id, name, arguments: text }) => ({
      id,
      type: "function",
      function: { name, arguments: text },
    }));
  }
  return sent;
}

/**
 * A question with its files before it, each between fences that are longer than any in the file.
 * @param {{ text: string, files?: AttachedFile[] }} message
 */
export function withFiles({ text, files = [] }) {
  const blocks = files.map((file) => {
    const longest = Math.max(2, ...Array.from(file.text.matchAll(/^`+/gm), (run) => run[0].length));
    const fence = "`".repeat(longest + 1);
    return `${file.name}:\n${fence}\n${file.text.replace(/\n$/, "")}\n${fence}`;
  });
  return [...blocks, text].filter(Boolean).join("\n\n");
}

/**
 * What is shown of a conversation, as Markdown.
 * @param {Conversation} conversation
 */
export function toMarkdown(conversation) {
  const parts = [`# ${conversation.title}`];
  if (conversation.settings.system) parts.push("## System", conversation.settings.system);
  for (const message of path(conversation)) {
    parts.push(`## ${{ user: "You", assistant: message.model || "Assistant", tool: "Tool" }[message.role]}`);
    if (message.thought) parts.push(`<details><summary>Thought</summary>\n\n${message.thought}\n\n</details>`);
    parts.push(message.role === "user" ? withFiles(message) : message.text);
    for (const call of message.calls ?? [])
      parts.push(`Calls \`${call.name}\`:\n\n\`\`\`json\n${call.arguments}\n\`\`\``);
  }
  return parts.filter(Boolean).join("\n\n") + "\n";
}

/**
 * Conversations as a file keeps them, of which `fromFile` makes them again.
 * @param {Conversation[]} conversations
 */
export function toFile(conversations) {
  return JSON.stringify({ format: "tallow-conversations", version: 1, conversations }, null, 1);
}

/**
 * The conversations of a file that `toFile` has made.
 * @param {string} text
 * @returns {Conversation[]}
 */
export function fromFile(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (file?.format !== "tallow-conversations" || file.version !== 1 || !Array.isArray(file.conversations)) {
    throw new Error("This file has not been exported by this page.");
  }
  if (!file.conversations.every(isConversation)) throw new Error("A conversation of this file is not whole.");
  return file.conversations;
}

/** @param {any} value @returns {value is Conversation} */
function isConversation(value) {
  const isText = (/** @type {any} */ text) => typeof text === "string";
  const isObject = (/** @type {any} */ object) =>
    typeof object === "object" && object !== null && !Array.isArray(object);
  const isTextOrNone = (/** @type {any} */ text) => text === undefined || isText(text);
  const areAll = (/** @type {any} */ list, /** @type {string[]} */ names) =>
    list === undefined ||
    (Array.isArray(list) && list.every((item) => isObject(item) && names.every((name) => isText(item[name]))));
  const isId = (/** @type {any} */ id) => isText(id) && /^[0-9a-z]{1,40}$/.test(id);
  if (!isObject(value) || !isId(value.id) || !isText(value.title)) return false;
  if (![value.settings, value.messages, value.shown].every(isObject)) return false;
  if (![value.created, value.updated].every(Number.isFinite)) return false;
  const { messages, shown } = value;
  const isMessage = (/** @type {[string, any]} */ [id, message]) =>
    isId(id) &&
    isObject(message) &&
    message.id === id &&
    isText(message.text) &&
    Number.isFinite(message.created) &&
    ["user", "assistant", "tool"].includes(message.role) &&
    [message.thought, message.error, message.model, message.callId, message.miss].every(isTextOrNone) &&
    areAll(message.files, ["name", "text"]) &&
    areAll(message.calls, ["id", "name", "arguments"]);
  return (
    Object.entries(messages).every(isMessage) &&
    Object.values(messages).every((message) => hasBeginning(messages, message)) &&
    Object.entries(shown).every(([parent, child]) => isId(child) && messages[child]?.parent === (parent || null))
  );
}

/**
 * Whether the messages before `message` end at a first one.
 * @param {Record<string, Message>} messages
 * @param {Message} message
 */
function hasBeginning(messages, message) {
  const seen = new Set();
  for (let at = message; at.parent !== null; at = messages[at.parent]) {
    if (seen.has(at.id) || !messages[at.parent]) return false;
    seen.add(at.id);
  }
  return true;
}
