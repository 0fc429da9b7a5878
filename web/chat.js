// The conversation that is shown, the field below it, and the answers that are being written. An answer goes on while
// another conversation, or the engine, is looked at.
import { Refusal, ask, events, send } from "./api.js";
import { add, path, toSend, withFiles } from "./conversation.js";
import { announce, button, byId, fill, make, number } from "./dom.js";
import { MessageView } from "./message.js";
import { requestFields } from "./settings.js";
import * as store from "./store.js";

/** How often an answer that is being written is kept, in milliseconds: a reload loses no more of it. */
const KEEP_EVERY = 300;
const isPhone = matchMedia("(hover: none) and (pointer: coarse)");

/** Shows conversations, and has them answered. */
export class Chat {
  /**
   * @param {{ model: () => string, context: () => number | undefined, changed: () => void, has: (id: string) => boolean }} page
   */
  constructor(page) {
    this.page = page;
    /** @type {import("./conversation.js").Conversation | null} */
    this.conversation = null;
    /** @type {Map<string, AbortController>} what ends the answers that are being written, by conversation */
    this.running = new Map();
    /** @type {Map<string, MessageView>} */
    this.views = new Map();
    /** @type {import("./conversation.js").AttachedFile[]} */
    this.files = [];
    /** Tokens of what stands in the field. */
    this.draft = 0;
    this.isAtEnd = true;
    this.list = byId("messages");
    this.scroller = byId("chat-scroll");
    this.field = byId("field");
    this.#listen();
  }

  #listen() {
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      if (this.isRunning()) this.stop();
      else this.ask();
    });
    this.field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      // On the keyboard of a phone there is no other way to begin a line.
      const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing && !isPhone.matches;
      if (sends) {
        event.preventDefault();
        if (!this.isRunning()) this.ask();
      } else if (event.key === "ArrowUp" && !this.field.value) {
        const last = this.conversation && path(this.conversation).findLast((message) => message.role === "user");
        if (last) (event.preventDefault(), this.views.get(last.id)?.edit());
      }
    });
    this.field.addEventListener("input", () => this.#countDraft());
    this.scroller.addEventListener("scroll", () => {
      const { scrollTop, clientHeight, scrollHeight } = this.scroller;
      this.isAtEnd = scrollTop + clientHeight > scrollHeight - 60;
      byId("to-end").hidden = this.isAtEnd;
    });
    byId("to-end").addEventListener("click", () => this.#toEnd(true));
    byId("attach").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", (/** @type {any} */ event) => this.#attach(event.target.files));
    const view = byId("chat");
    view.addEventListener("dragover", (/** @type {DragEvent} */ event) => event.preventDefault());
    view.addEventListener("drop", (/** @type {DragEvent} */ event) => {
      event.preventDefault();
      this.#attach(event.dataTransfer?.files);
    });
    this.field.addEventListener("paste", (/** @type {ClipboardEvent} */ event) => {
      if (event.clipboardData?.files.length) (event.preventDefault(), this.#attach(event.clipboardData.files));
    });
  }

  isRunning() {
    return this.running.has(this.conversation?.id ?? "");
  }

  /**
   * Shows a conversation.
   * @param {import("./conversation.js").Conversation} conversation
   */
  open(conversation) {
    this.conversation = conversation;
    this.views.clear();
    this.isAtEnd = true;
    this.show();
    this.#countDraft();
  }

  /** Shows the messages of the conversation's path, each in the elements that it has. */
  show() {
    const { conversation } = this;
    if (!conversation) return;
    const messages = path(conversation);
    const elements = messages.map((message, at) => {
      let view = this.views.get(message.id);
      if (!view) this.views.set(message.id, (view = new MessageView(conversation, message, this.#actions())));
      view.update(at === messages.length - 1);
      return view.element;
    });
    // Elements that stay where they are keep the focus, and their place.
    elements.forEach((element, at) => {
      if (this.list.children[at] !== element) this.list.insertBefore(element, this.list.children[at] ?? null);
    });
    while (this.list.children.length > elements.length) this.list.lastChild.remove();
    byId("welcome").hidden = elements.length > 0;
    const action = byId("send");
    action.textContent = this.isRunning() ? "Stop" : "Send";
    this.#meter();
    this.#toEnd(false);
  }

  /** @returns {import("./message.js").Actions} */
  #actions() {
    const conversation = /** @type {import("./conversation.js").Conversation} */ (this.conversation);
    return {
      choose: (message, version) => {
        conversation.shown[message.parent ?? ""] = version;
        this.#keep(conversation);
        this.show();
        this.views.get(version)?.element.querySelector(".versions button:not([disabled])")?.focus();
      },
      edit: (message, text) => this.#question(conversation, message.parent, text, message.files),
      retry: (message) => {
        // An answer that has failed before its first word is no version that one would look at again.
        if (message.state === "failed" && !message.text && !message.thought) delete conversation.messages[message.id];
        this.#answer(conversation, message.parent);
      },
      goOn: (message) => this.#answer(conversation, message.parent, message),
      answerCalls: (message, results) => {
        let last = message.id;
        message.calls?.forEach((call, at) => {
          last = add(conversation, last, { role: "tool", text: results[at], callId: call.id }).id;
        });
        this.#answer(conversation, last);
      },
    };
  }

  /** Asks what stands in the field. */
  ask() {
    const { conversation } = this;
    const text = this.field.value.trim();
    if (!conversation || this.isRunning() || (!text && !this.files.length)) return;
    const files = this.files.length ? this.files : undefined;
    this.field.value = "";
    this.files = [];
    this.#showFiles();
    this.draft = 0;
    this.isAtEnd = true;
    this.#question(conversation, path(conversation).at(-1)?.id ?? null, text, files);
  }

  /**
   * @param {import("./conversation.js").Conversation} conversation
   * @param {string | null} parent
   * @param {string} text
   * @param {import("./conversation.js").AttachedFile[] | undefined} files
   */
  #question(conversation, parent, text, files) {
    this.running.get(conversation.id)?.abort();
    this.#answer(conversation, add(conversation, parent, { role: "user", text, files }).id);
  }

  /** Ends the answer that is being written; what there is of it stays. */
  stop() {
    this.running.get(this.conversation?.id ?? "")?.abort();
  }

  /**
   * Has a message answered, beside earlier answers to it, or has an answer continued.
   * @param {import("./conversation.js").Conversation} conversation
   * @param {string | null} parent the message to answer
   * @param {import("./conversation.js").Message} [continued]
   */
  async #answer(conversation, parent, continued) {
    this.running.get(conversation.id)?.abort();
    const stop = new AbortController();
    this.running.set(conversation.id, stop);
    const answer = continued ?? add(conversation, parent, { role: "assistant" });
    Object.assign(answer, { state: "running", error: undefined, miss: undefined, timing: undefined, usage: undefined });
    this.page.changed();
    this.#refresh(conversation);
    announce("The answer is being written.");
    try {
      await this.#stream(conversation, answer, Boolean(continued), stop.signal);
    } catch (error) {
      if (stop.signal.aborted) answer.state = "stopped";
      else {
        answer.state = "failed";
        answer.error = error instanceof Refusal ? error.message : `The answer could not be read: ${error}`;
      }
    }
    if (this.running.get(conversation.id) === stop) this.running.delete(conversation.id);
    conversation.updated = Date.now();
    await this.#keep(conversation);
    this.page.changed();
    this.#refresh(conversation);
    if (answer.state !== "failed") announce(answer.state === "stopped" ? "Stopped." : "The answer is complete.");
  }

  /**
   * @param {import("./conversation.js").Conversation} conversation
   * @param {import("./conversation.js").Message} answer
   * @param {boolean} continues
   * @param {AbortSignal} signal
   */
  async #stream(conversation, answer, continues, signal) {
    const body = {
      ...requestFields(conversation.settings),
      model: conversation.settings.model || this.page.model(),
      messages: toSend(conversation, continues ? answer.id : answer.parent),
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
      ...(continues ? { continue_final_message: true, add_generation_prompt: false } : {}),
    };
    const begun = performance.now();
    const reply = await send("v1/chat/completions", { body, signal });
    answer.miss = reply.headers.get("x-tallow-cache")?.match(/miss="([^"]*)"/)?.[1];
    let kept = 0;
    for await (const event of events(reply)) {
      if (event.error) throw new Refusal(0, event.error.code ?? "", event.error.message);
      if (event.model) answer.model = event.model;
      if (event.usage) answer.usage = usageOf(event.usage);
      const choice = event.choices?.[0];
      if (!choice) continue;
      const now = performance.now();
      if (grow(answer, choice.delta)) {
        answer.timing = { first: answer.timing?.first ?? now - begun, last: now - begun };
      }
      if (choice.finish_reason) answer.state = choice.finish_reason === "length" ? "length" : "done";
      if (now - kept > KEEP_EVERY) {
        kept = now;
        this.#keep(conversation);
      }
      this.#refreshSoon(conversation);
    }
    if (answer.state === "running") answer.state = "done";
  }

  /** @param {import("./conversation.js").Conversation} conversation */
  #refreshSoon(conversation) {
    if (this.soon || this.conversation !== conversation) return;
    // A page in the background has no frames.
    this.soon = setTimeout(() => {
      this.soon = undefined;
      this.#refresh(conversation);
    }, 40);
  }

  /** @param {import("./conversation.js").Conversation} conversation */
  #refresh(conversation) {
    if (this.conversation === conversation) this.show();
  }

  /** @param {import("./conversation.js").Conversation} conversation */
  async #keep(conversation) {
    // One that has been deleted meanwhile must not come back.
    if (!this.page.has(conversation.id)) return;
    await store.keep(conversation).catch(() => (byId("not-kept").hidden = false));
  }

  /** @param {boolean} always */
  #toEnd(always) {
    if (!always && !this.isAtEnd) return;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.isAtEnd = true;
  }

  /** @param {FileList | undefined} list */
  async #attach(list) {
    const problem = byId("file-problem");
    problem.hidden = true;
    for (const file of list ?? []) {
      try {
        const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
        if (text.includes("\0")) throw new Error();
        this.files.push({ name: file.name, text: text.replaceAll("\r\n", "\n") });
      } catch {
        problem.textContent = `${file.name} is not a text in UTF-8, so a model of texts cannot read it.`;
        problem.hidden = false;
      }
    }
    byId("file").value = "";
    this.#showFiles();
    this.#countDraft();
    this.field.focus();
  }

  #showFiles() {
    fill(
      byId("attached"),
      ...this.files.map((file) =>
        make(
          "span.chip",
          {},
          file.name,
          button(
            "×",
            () => {
              this.files = this.files.filter((other) => other !== file);
              this.#showFiles();
              this.#countDraft();
              this.field.focus();
            },
            { "aria-label": `Remove ${file.name}` },
          ),
        ),
      ),
    );
  }

  /** Asks the server how many tokens the field and the files are, when nothing has been typed for a moment. */
  #countDraft() {
    clearTimeout(this.counting);
    const text = withFiles({ text: this.field.value, files: this.files });
    if (!text) {
      this.draft = 0;
      this.#meter();
      return;
    }
    this.counting = setTimeout(async () => {
      const body = { prompt: text, add_special_tokens: false };
      const counted = await ask("tokenize", { body }).catch(() => null);
      if (!counted || text !== withFiles({ text: this.field.value, files: this.files })) return;
      this.draft = counted.count;
      this.#meter();
    }, 350);
  }

  /** Shows how much of the context the conversation takes, and how much of that was in the cache. */
  #meter() {
    const context = this.page.context();
    byId("meter").hidden = !context;
    if (!context || !this.conversation) return;
    const { usage } = path(this.conversation).findLast((message) => message.usage) ?? {};
    const { cached = 0, prompt = 0, answer = 0 } = usage ?? {};
    const parts = { cached, computed: prompt - cached, answer, draft: this.draft };
    const used = prompt + answer + this.draft;
    for (const [name, tokens] of Object.entries(parts)) {
      byId(`meter-${name}`).style.width = `${(100 * tokens) / Math.max(context, used)}%`;
    }
    const more = [usage && `${number(cached)} were cached`, this.draft && `${number(this.draft)} to send`].filter(
      Boolean,
    );
    const isOver = used >= context;
    byId("meter-words").textContent = isOver
      ? `${number(used)} of ${number(context)} tokens: begin a new chat, or edit an earlier message`
      : `${number(used)} of ${number(context)} tokens`;
    byId("meter-more").textContent = more.join(" · ");
    byId("meter").classList.toggle("over", isOver);
  }
}

/** @param {any} usage @returns {import("./conversation.js").Usage} */
function usageOf(usage) {
  return {
    prompt: usage.prompt_tokens ?? 0,
    cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
    answer: usage.completion_tokens ?? 0,
    thought: usage.completion_tokens_details?.reasoning_tokens ?? 0,
  };
}

/**
 * Adds to an answer what an event brings. True if that is anything.
 * @param {import("./conversation.js").Message} answer
 * @param {any} delta
 */
function grow(answer, delta) {
  const thought = delta?.reasoning_content ?? delta?.reasoning ?? "";
  answer.text += delta?.content ?? "";
  if (thought) answer.thought = (answer.thought ?? "") + thought;
  for (const part of delta?.tool_calls ?? []) {
    const calls = (answer.calls ??= []);
    const call = (calls[part.index] ??= { id: "", name: "", arguments: "" });
    call.id ||= part.id ?? "";
    call.name ||= part.function?.name ?? "";
    call.arguments += part.function?.arguments ?? "";
  }
  return Boolean(delta?.content || thought || delta?.tool_calls?.length);
}

/**
 * Brings answers that a closed page has left to an end.
 * @param {import("./conversation.js").Conversation} conversation
 */
export function settle(conversation) {
  for (const message of Object.values(conversation.messages))
    if (message.state === "running") message.state = "stopped";
}
