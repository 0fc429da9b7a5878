// The dialog of a conversation's settings, and the fields of a request that follow from them.
import { keepKey, key } from "./api.js";
import { byId, fill, make } from "./dom.js";

/** @typedef {import("./conversation.js").Settings} Settings */

/** Sampling fields of a request: name, label, smallest and largest value, step. */
const SAMPLING = /** @type {const} */ ([
  ["temperature", "Temperature", 0, 2, 0.05],
  ["top_p", "Top p", 0, 1, 0.01],
  ["top_k", "Top k", -1, 100000, 1],
  ["min_p", "Min p", 0, 1, 0.01],
  ["max_tokens", "Tokens of an answer", 1, 10000000, 1],
  ["seed", "Seed", 0, Number.MAX_SAFE_INTEGER, 1],
  ["repetition_penalty", "Repetition penalty", 0.01, 2, 0.01],
  ["presence_penalty", "Presence penalty", -2, 2, 0.05],
  ["frequency_penalty", "Frequency penalty", -2, 2, 0.05],
]);
/** What llama.cpp, whose form /props has, calls fields by another name. */
const IN_PROPS = { repetition_penalty: "repeat_penalty", max_tokens: "" };

/**
 * The fields of a request that a conversation's settings ask for; what is left empty is left to the server.
 * @param {Settings} settings
 */
export function requestFields({ sampling = {}, stop, tools, thinking }) {
  /** @type {Record<string, any>} */
  const fields = { ...sampling };
  const stops = (stop ?? "").split("\n").filter(Boolean);
  if (stops.length) fields.stop = stops;
  if (tools) fields.tools = parseTools(tools);
  if (thinking) fields.enable_thinking = thinking === "on";
  return fields;
}

/** @param {string} text @returns {any[]} */
function parseTools(text) {
  const form = 'Tools must be a JSON list of {"type": "function", "function": {"name": .., "parameters": {..}}}';
  let tools;
  try {
    tools = JSON.parse(text);
  } catch (error) {
    throw new Error(`${form}: ${/** @type {Error} */ (error).message}`);
  }
  const isTool = (/** @type {any} */ tool) => tool?.type === "function" && typeof tool.function?.name === "string";
  if (!Array.isArray(tools) || !tools.every(isTool)) throw new Error(`${form}.`);
  return tools;
}

/** The dialog. */
export class SettingsDialog {
  /** @param {(settings: Settings) => void} changed */
  constructor(changed) {
    this.dialog = byId("settings");
    this.form = byId("settings-form");
    fill(
      byId("sampling"),
      ...SAMPLING.map(([name, label, min, max, step]) =>
        make(
          "label",
          {},
          label,
          make("input", { name, type: "number", min, max, step: step < 1 ? "any" : step, inputmode: "decimal" }),
        ),
      ),
    );
    this.form.elements.tools.addEventListener("input", () => this.#checkTools());
    this.form.addEventListener("submit", () => changed(this.#read()));
    byId("settings-close").addEventListener("click", () => this.dialog.close());
    byId("forget-key").addEventListener("click", () => {
      keepKey("");
      byId("forget-key").hidden = true;
    });
  }

  /**
   * @param {Settings} settings
   * @param {string[]} models
   * @param {Record<string, any> | undefined} defaults the server's sampling where a request does not say
   */
  open(settings, models, defaults) {
    const { elements } = this.form;
    elements.system.value = settings.system ?? "";
    elements.thinking.value = settings.thinking ?? "";
    elements.stop.value = settings.stop ?? "";
    elements.tools.value = settings.tools ?? "";
    const names = new Set([...models, settings.model ?? ""].filter(Boolean));
    fill(elements.model, ...[...names].map((name) => make("option", { value: name }, name)));
    elements.model.value = settings.model || models[0] || "";
    byId("model-field").hidden = names.size < 2;
    for (const [name] of SAMPLING) {
      const known = /** @type {Record<string, string>} */ (IN_PROPS)[name] ?? name;
      const value = defaults?.[known];
      elements[name].placeholder = typeof value === "number" ? `${Number(value.toPrecision(4))}` : "";
      elements[name].value = settings.sampling?.[name] ?? "";
    }
    byId("forget-key").hidden = !key();
    this.#checkTools();
    this.dialog.showModal();
  }

  #checkTools() {
    const field = this.form.elements.tools;
    let problem = "";
    try {
      if (field.value.trim()) parseTools(field.value);
    } catch (error) {
      problem = /** @type {Error} */ (error).message;
    }
    field.setCustomValidity(problem);
  }

  /** @returns {Settings} */
  #read() {
    const { elements } = this.form;
    /** @type {Record<string, number>} */
    const sampling = {};
    for (const [name] of SAMPLING) if (elements[name].value !== "") sampling[name] = Number(elements[name].value);
    return {
      system: elements.system.value.trim(),
      model: byId("model-field").hidden ? "" : elements.model.value,
      thinking: elements.thinking.value,
      stop: elements.stop.value,
      tools: elements.tools.value.trim(),
      sampling,
    };
  }
}
