// Conversations are kept in the browser's IndexedDB and never leave it, but for what is sent to be answered.

/** @type {IDBDatabase | undefined} */
let opened;

/** @typedef {{ kept?: string, forgotten?: string }} Change what has changed: a conversation's id; neither: all are gone */

/** Tabs tell each other what they have changed. A tab does not hear itself. */
const tabs = new BroadcastChannel("tallow");

/** @param {(change: Change) => void} act is told what another tab has changed */
export function onChange(act) {
  tabs.onmessage = ({ data }) => act(data);
}

/** @returns {Promise<IDBDatabase>} */
function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("tallow", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
    request.onsuccess = () => resolve((opened = request.result));
    request.onerror = () => reject(request.error);
  });
}

/**
 * Once the database is open, what is written is on its way when this returns: a page that goes has no time to wait.
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest} act
 * @returns {Promise<any>}
 */
async function run(mode, act) {
  const transaction = (opened ?? (await open())).transaction("conversations", mode);
  const request = act(transaction.objectStore("conversations"));
  transaction.commit();
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

/**
 * All conversations that are kept.
 * @returns {Promise<import("./conversation.js").Conversation[]>}
 */
export function all() {
  return run("readonly", (store) => store.getAll());
}

/**
 * @param {string} id
 * @returns {Promise<import("./conversation.js").Conversation | undefined>}
 */
export function find(id) {
  return run("readonly", (store) => store.get(id));
}

/** @param {import("./conversation.js").Conversation} conversation */
export async function keep(conversation) {
  await run("readwrite", (store) => store.put(conversation));
  tabs.postMessage({ kept: conversation.id });
}

/** @param {string} id */
export async function forget(id) {
  await run("readwrite", (store) => store.delete(id));
  tabs.postMessage({ forgotten: id });
}

/** Forgets all conversations. */
export async function forgetAll() {
  await run("readwrite", (store) => store.clear());
  tabs.postMessage({});
}
