// The page's frame: which view is shown, the list of conversations, what the server is.
import { ask, keepKey, key, onKeyNeeded } from "./api.js";
import { Chat, settle } from "./chat.js";
import { begin, fromFile, newId, toFile, toMarkdown } from "./conversation.js";
import { byId, fill, make, number, save, set } from "./dom.js";
import { EngineView } from "./engine.js";
import { SettingsDialog } from "./settings.js";
import * as store from "./store.js";
import { recall, remember } from "./values.js";

/** Where the settings are kept with which a new conversation begins. */
const SETTINGS = "tallow.settings";

/** @type {Map<string, import("./conversation.js").Conversation>} */
const conversations = new Map();
/** @type {{ models: string[], context?: number, defaults?: Record<string, any> }} what the server has told of itself */
const server = { models: [] };

onKeyNeeded(async () => {
  // What the page asks for by itself, such as a count of tokens, must not cover a dialog that the reader is in.
  for (let other; (other = document.querySelector("dialog[open]")); ) {
    await new Promise((resolve) => other.addEventListener("close", resolve, { once: true }));
  }
  const dialog = byId("key-dialog");
  byId("key-wrong").hidden = !key();
  byId("key").value = "";
  dialog.showModal();
  return new Promise((resolve) =>
    byId("key-form").addEventListener("submit", () => resolve(byId("key").value.trim()), { once: true }),
  );
});
// Without a key nothing works, so the dialog stays.
byId("key-dialog").addEventListener("cancel", (/** @type {Event} */ event) => event.preventDefault());

const chat = new Chat({
  model: () => server.models[0] ?? "",
  context: () => server.context,
  changed: () => list(),
  has: (id) => conversations.has(id),
});
const engine = new EngineView();
const settings = new SettingsDialog((changed) => {
  if (!chat.conversation) return;
  chat.conversation.settings = changed;
  remember(SETTINGS, JSON.stringify(changed));
  if (conversations.has(chat.conversation.id)) store.keep(chat.conversation);
  showModel();
});

/** The settings with which a new conversation begins: those that were changed last. */
function lastSettings() {
  try {
    return JSON.parse(recall(SETTINGS) || "{}");
  } catch {
    return {};
  }
}

/** Shows what the address names: `#engine`, the conversation `#ID`, or a new one. */
function route() {
  const name = location.hash.slice(1);
  const isEngine = name === "engine";
  byId("chat").hidden = isEngine;
  byId("engine").hidden = !isEngine;
  engine.show(isEngine);
  set(byId("to-chat"), { "aria-current": isEngine ? null : "page" });
  set(byId("to-engine"), { "aria-current": isEngine ? "page" : null });
  if (isEngine) document.title = "Engine · Tallow";
  else {
    const conversation = conversations.get(name);
    if (name && !conversation) return location.replace("#");
    chat.open(conversation ?? begin(lastSettings()));
    document.title = conversation?.title ? `${conversation.title} · Tallow` : "Tallow";
    byId("to-chat").href = `#${name}`;
    if (matchMedia("(hover: hover)").matches) byId("field").focus();
  }
  showModel();
  closeSide();
  list();
}

/** Shows the conversations whose title or text has what is searched for, the newest first. */
function list() {
  const current = chat.conversation;
  if (current && Object.keys(current.messages).length && !conversations.has(current.id)) {
    conversations.set(current.id, current);
    // No event of a changed address is wanted: the conversation is shown already.
    history.replaceState(null, "", `#${current.id}`);
    byId("to-chat").href = `#${current.id}`;
    document.title = `${current.title} · Tallow`;
  }
  const sought = byId("search").value.trim().toLowerCase();
  const has = (/** @type {import("./conversation.js").Conversation} */ conversation) =>
    [conversation.title, ...Object.values(conversation.messages).map((message) => message.text)].some((text) =>
      text.toLowerCase().includes(sought),
    );
  const shown = [...conversations.values()].filter((one) => !sought || has(one)).sort((a, b) => b.updated - a.updated);
  fill(
    byId("conversations"),
    ...shown.map((one) =>
      make(
        "li",
        {},
        make(
          "a",
          { href: `#${one.id}`, "aria-current": one === current && !byId("chat").hidden ? "page" : null },
          chat.running.has(one.id) && make("span.dot", { role: "img", "aria-label": "being answered" }),
          one.title || "Conversation",
        ),
      ),
    ),
  );
  byId("none-found").hidden = shown.length > 0;
  byId("none-found").textContent = sought ? "Nothing found." : "No conversations yet.";
  const isKept = Boolean(current && conversations.has(current.id));
  for (const id of ["rename", "delete", "export-markdown", "export-json"]) byId(id).disabled = !isKept;
}

function newChat() {
  if (location.hash && location.hash !== "#") location.hash = "";
  else route();
}

function closeSide() {
  byId("side").classList.remove("open");
  byId("menu").setAttribute("aria-expanded", "false");
}

/** Shows by which model the conversation is answered. */
function showModel() {
  byId("model-name").textContent = chat.conversation?.settings.model || server.models[0] || "";
}

/** Asks the server what it serves, and again while it still loads the model. */
async function learn() {
  try {
    const [models, props] = await Promise.all([ask("v1/models"), ask("props")]);
    server.models = models.data.map((/** @type {any} */ model) => model.id);
    server.context = props.default_generation_settings.n_ctx;
    server.defaults = props.default_generation_settings.params;
    byId("server-problem").hidden = true;
    byId("welcome-words").textContent =
      `${server.models[0]} runs on the machine that serves this page. It reads up to ${number(server.context)} tokens at once.`;
    showModel();
    chat.show();
  } catch (error) {
    const { message, code } = /** @type {import("./api.js").Refusal} */ (error);
    byId("server-problem").textContent =
      code === "model_loading" ? "The model is being loaded. This page waits for it." : message;
    byId("server-problem").hidden = false;
    setTimeout(learn, 2000);
  }
}

/** @param {string} name @param {(current: import("./conversation.js").Conversation) => void} act */
function onCurrent(name, act) {
  byId(name).addEventListener("click", () => {
    byId("more").open = false;
    if (chat.conversation) act(chat.conversation);
  });
}

/** @param {string} title */
function fileName(title) {
  return (
    title
      .replace(/[^\p{L}\p{N}]+/gu, "-")
      .replace(/^-|-$/g, "")
      .slice(0, 50) || "conversation"
  );
}

function listen() {
  addEventListener("hashchange", route);
  byId("new").addEventListener("click", newChat);
  byId("search").addEventListener("input", list);
  byId("menu").addEventListener("click", () => {
    const isOpen = byId("side").classList.toggle("open");
    byId("menu").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) byId("search").focus();
  });
  byId("veil").addEventListener("click", closeSide);
  byId("open-settings").addEventListener("click", () =>
    settings.open(chat.conversation?.settings ?? {}, server.models, server.defaults),
  );
  onCurrent("rename", (current) => {
    byId("title").value = current.title;
    byId("rename-dialog").showModal();
  });
  byId("rename-form").addEventListener("submit", () => {
    const current = chat.conversation;
    if (!current) return;
    current.title = byId("title").value.trim() || current.title;
    store.keep(current);
    document.title = `${current.title} · Tallow`;
    list();
  });
  onCurrent("delete", (current) =>
    confirmed(`Delete “${current.title}”?`, async () => {
      chat.stop();
      conversations.delete(current.id);
      chat.conversation = null;
      await store.forget(current.id);
      newChat();
    }),
  );
  onCurrent("export-markdown", (current) =>
    save(`${fileName(current.title)}.md`, "text/markdown", toMarkdown(current)),
  );
  onCurrent("export-json", (current) => save(`${fileName(current.title)}.json`, "application/json", toFile([current])));
  byId("export-all").addEventListener("click", () =>
    save("tallow-conversations.json", "application/json", toFile([...conversations.values()])),
  );
  byId("import").addEventListener("click", () => byId("import-file").click());
  byId("import-file").addEventListener("change", importFile);
  byId("delete-all").addEventListener("click", () =>
    confirmed(`Delete all ${conversations.size} conversations?`, async () => {
      byId("settings").close();
      chat.running.forEach((stop) => stop.abort());
      conversations.clear();
      chat.conversation = null;
      await store.forgetAll();
      newChat();
    }),
  );
  addEventListener("keydown", shortcut);
  document.addEventListener("click", (event) => {
    if (!byId("more").contains(event.target)) byId("more").open = false;
  });
  // What is being written when the page goes is kept as far as it has come.
  addEventListener("pagehide", () => {
    for (const id of chat.running.keys()) store.keep(/** @type {any} */ (conversations.get(id)));
  });
}

/** @param {KeyboardEvent} event */
function shortcut(event) {
  if (document.querySelector("dialog[open]")) return;
  const withCommand = event.ctrlKey || event.metaKey;
  if (event.key === "Escape") {
    if (byId("side").classList.contains("open")) (closeSide(), byId("menu").focus());
    else if (byId("more").open) byId("more").open = false;
    else if (chat.isRunning()) chat.stop();
  } else if (withCommand && event.shiftKey && event.key.toLowerCase() === "o") (event.preventDefault(), newChat());
  else if (withCommand && event.key.toLowerCase() === "k") {
    event.preventDefault();
    if (getComputedStyle(byId("menu")).display !== "none" && !byId("side").classList.contains("open"))
      byId("menu").click();
    byId("search").focus();
  }
}

/** @param {string} question @param {() => void} act */
function confirmed(question, act) {
  byId("confirm-words").textContent = question;
  const dialog = byId("confirm-dialog");
  dialog.returnValue = "";
  dialog.addEventListener("close", () => dialog.returnValue === "yes" && act(), { once: true });
  dialog.showModal();
}

async function importFile() {
  const [file] = byId("import-file").files;
  byId("import-file").value = "";
  if (!file) return;
  let words;
  try {
    const read = fromFile(await file.text());
    for (const one of read) {
      settle(one);
      // A conversation that is here too stays beside the imported one.
      if (conversations.has(one.id)) one.id = newId();
      conversations.set(one.id, one);
      await store.keep(one);
    }
    words = `${read.length} imported.`;
  } catch (error) {
    words = /** @type {Error} */ (error).message;
  }
  byId("import-words").textContent = words;
  list();
}

/**
 * Takes over what another tab has changed, but for a conversation that is being answered in this one.
 * @param {import("./store.js").Change} change
 */
async function takeOver({ kept, forgotten }) {
  const current = chat.conversation?.id ?? "";
  if (kept) {
    const one = await store.find(kept);
    if (!one || chat.running.has(kept)) return;
    conversations.set(kept, one);
    if (current === kept) chat.open(one);
  } else {
    if (forgotten) conversations.delete(forgotten);
    else conversations.clear();
    if (current && !conversations.has(current) && location.hash === `#${current}`) return newChat();
  }
  list();
}

async function start() {
  listen();
  store.onChange(takeOver);
  try {
    for (const one of await store.all()) {
      settle(one);
      conversations.set(one.id, one);
    }
  } catch {
    byId("not-kept").hidden = false;
  }
  route();
  learn();
}

start();
