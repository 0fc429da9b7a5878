// One message of a conversation, as it is shown and as it grows.
import { announce, bytes, button, copyButton, fill, make, number } from "./dom.js";
import { highlight } from "./highlight.js";
import { show } from "./markdown.js";
import { versions } from "./conversation.js";

/**
 * What can be done with a message.
 * @typedef {object} Actions
 * @property {(message: import("./conversation.js").Message, version: string) => void} choose
 * @property {(message: import("./conversation.js").Message, text: string) => void} edit
 * @property {(message: import("./conversation.js").Message) => void} retry
 * @property {(message: import("./conversation.js").Message) => void} goOn
 * @property {(message: import("./conversation.js").Message, results: string[]) => void} answerCalls
 */

const NAMES = { user: "You", assistant: "Assistant", tool: "Tool result" };

/** The elements of one message. */
export class MessageView {
  /**
   * @param {import("./conversation.js").Conversation} conversation
   * @param {import("./conversation.js").Message} message
   * @param {Actions} actions
   */
  constructor(conversation, message, actions) {
    this.conversation = conversation;
    this.message = message;
    this.actions = actions;
    /** How many of the text's blocks have been announced. */
    this.announced = 0;
    this.isWriting = false;
    /** What decides how the message looks, as of the last update. */
    this.state = "";
    this.head = make("h2");
    this.thought = make("div.prose");
    this.thoughtTitle = make("summary");
    this.thoughtBox = make("details.thought", {}, this.thoughtTitle, this.thought);
    this.body = make(message.role === "user" ? "div.said" : "div.prose");
    this.files = make("div.files");
    this.calls = make("div");
    this.problem = make("p.problem", { role: "alert" });
    this.buttons = make("span.buttons");
    this.figures = make("span.figures");
    this.foot = make("div.foot", {}, this.buttons, this.figures);
    this.element = make(
      `article.message.${message.role}`,
      { "data-id": message.id },
      this.head,
      this.files,
      this.thoughtBox,
      this.body,
      this.calls,
      this.problem,
      this.foot,
    );
    this.update(false);
  }

  /**
   * Shows the message as it is now.
   * @param {boolean} isLast whether it is the last one that is shown
   */
  update(isLast) {
    const { message } = this;
    const isRunning = message.state === "running";
    const ids = versions(this.conversation, message).map((version) => version.id);
    const state = JSON.stringify([message.state, message.text.length, message.error, isLast, ids]);
    // While one answer grows, all others are as they were.
    if (!isRunning && state === this.state) return;
    this.state = state;
    this.element.setAttribute("aria-busy", String(isRunning));
    this.head.textContent = message.role === "assistant" ? message.model || NAMES.assistant : NAMES[message.role];
    this.#showThought(isRunning);
    if (message.role === "assistant") {
      const texts = show(this.body, message.text);
      const whole = isRunning ? texts.length - 1 : texts.length;
      if (isRunning || this.isWriting) texts.slice(this.announced, whole).forEach(announce);
      this.announced = Math.max(whole, 0);
      this.isWriting = isRunning;
    } else this.body.textContent = message.text;
    this.body.classList.toggle("writing", isRunning && !message.calls?.length);
    fill(this.files, ...(message.files ?? []).map(fileView));
    this.files.hidden = !message.files?.length;
    this.#showCalls(isLast && !isRunning);
    this.problem.hidden = !message.error;
    if (this.problem.textContent !== (message.error ?? "")) this.problem.textContent = message.error ?? "";
    this.#showButtons(isLast, ids);
    this.figures.textContent = figures(message);
  }

  /** @param {boolean} isRunning */
  #showThought(isRunning) {
    const { thought, text, usage } = this.message;
    this.thoughtBox.hidden = !thought;
    if (!thought) return;
    const tokens = usage?.thought ? `, ${number(usage.thought)} tokens` : "";
    this.thoughtTitle.textContent = isRunning && !text ? "Thinking…" : `Thought${tokens}`;
    show(this.thought, thought);
  }

  /** @param {boolean} canAnswer */
  #showCalls(canAnswer) {
    const calls = this.message.calls ?? [];
    const state = JSON.stringify([calls, canAnswer]);
    if (state === this.calls.dataset.state) return;
    this.calls.dataset.state = state;
    fill(this.calls, ...calls.map(callView));
    if (!canAnswer || !calls.length) return;
    const fields = calls.map((call) =>
      make("textarea", { rows: 2, "aria-label": `Result of ${call.name}`, placeholder: `What ${call.name} gives` }),
    );
    const give = () =>
      this.actions.answerCalls(
        this.message,
        fields.map((field) => field.value),
      );
    this.calls.append(
      make(
        "form.results",
        { submit: (/** @type {Event} */ event) => (event.preventDefault(), give()) },
        ...fields,
        make("button.strong", {}, calls.length > 1 ? "Give these results" : "Give this result"),
      ),
    );
  }

  /**
   * Shows what can be done. Buttons that stay the same keep their elements, so that they can be pressed while the
   * answer grows.
   * @param {boolean} isLast
   * @param {string[]} ids the message's versions
   */
  #showButtons(isLast, ids) {
    const { message, actions } = this;
    const at = ids.indexOf(message.id);
    const isRunning = message.state === "running";
    const isCut = ["stopped", "length", "failed"].includes(message.state ?? "");
    const canGoOn = isLast && isCut && message.text && !message.calls?.length;
    const state = JSON.stringify([ids, isRunning, Boolean(message.text), Boolean(canGoOn)]);
    if (state === this.buttons.dataset.state) return;
    this.buttons.dataset.state = state;
    const step = (/** @type {number} */ by, /** @type {string} */ text, /** @type {string} */ label) =>
      button(text, () => actions.choose(message, ids[at + by]), { "aria-label": label, disabled: !ids[at + by] });
    const others =
      ids.length > 1 &&
      make(
        "span.versions",
        { role: "group", "aria-label": "Versions" },
        step(-1, "‹", "Earlier version"),
        `${at + 1} of ${ids.length}`,
        step(1, "›", "Later version"),
      );
    fill(
      this.buttons,
      others,
      message.text && copyButton(() => message.text, "message"),
      message.role === "user" && button("Edit", () => this.edit()),
      message.role === "assistant" && !isRunning && button("Retry", () => actions.retry(message)),
      canGoOn && button("Continue", () => actions.goOn(message)),
    );
  }

  /** Puts a form in the place of the text, by which it is asked anew beside the old version. */
  edit() {
    const field = make("textarea", {
      rows: Math.min(12, this.message.text.split("\n").length + 1),
      "aria-label": "Edit the message",
    });
    field.value = this.message.text;
    const close = () => {
      form.replaceWith(this.body);
      this.foot.hidden = false;
      this.foot.querySelector("button")?.focus();
    };
    const done = (/** @type {Event} */ event) => {
      event.preventDefault();
      close();
      if (field.value.trim() || this.message.files?.length) this.actions.edit(this.message, field.value);
    };
    const form = make(
      "form.edit",
      { submit: done },
      field,
      make("div.row", {}, make("button.strong", {}, "Send"), button("Cancel", close)),
    );
    form.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") (event.stopPropagation(), close());
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) done(event);
    });
    this.body.replaceWith(form);
    this.foot.hidden = true;
    field.focus();
  }
}

/** @param {import("./conversation.js").AttachedFile} file */
function fileView(file) {
  const size = bytes(new Blob([file.text]).size);
  return make(
    "details.file",
    {},
    make("summary", {}, `${file.name} · ${size}`),
    make("pre", { tabindex: 0 }, file.text),
  );
}

/** @param {import("./conversation.js").ToolCall} call */
function callView(call) {
  let text = call.arguments;
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // The arguments are still being written.
  }
  return make(
    "details.call",
    { open: true },
    make("summary", {}, "Calls ", make("code", {}, call.name)),
    make("pre", { tabindex: 0 }, ...highlight(text, "json")),
  );
}

/**
 * What an answer cost, in a line.
 * @param {import("./conversation.js").Message} message
 */
function figures({ usage, timing, miss, state }) {
  if (!usage) return "";
  const parts = [`${number(usage.answer)} tokens`];
  const seconds = ((timing?.last ?? 0) - (timing?.first ?? 0)) / 1000;
  // Pieces that came at once tell nothing of the speed.
  if (usage.answer > 1 && seconds > 0.05) parts.push(`${number((usage.answer - 1) / seconds, 1)} tokens/s`);
  if (timing?.first) parts.push(`first after ${number(timing.first / 1000, 2)} s`);
  parts.push(`${number(usage.cached)} of ${number(usage.prompt)} prompt tokens cached${miss ? ` (${miss})` : ""}`);
  if (state === "length") parts.push("ended at its limit");
  return parts.join(" · ");
}
