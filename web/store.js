// Conversations are kept in the browser's IndexedDB and never leave it, but for what is sent to be answered.

/** @type {IDBDatabase | undefined} */
let opened;

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

/** @param {import("./conversation.js").Conversation} conversation */
export function keep(conversation) {
  return run("readwrite", (store) => store.put(conversation));
}

/** @param {string} id */
export function forget(id) {
  return run("readwrite", (store) => store.delete(id));
}

/** Forgets all conversations. */
export function forgetAll() {
  return run("readwrite", (store) => store.clear());
}
