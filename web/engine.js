// What the engine does, from what the server tells: /metrics, /v1/cache and /server_info.
import { ask, send } from "./api.js";
import { bytes, byId, fill, make, number } from "./dom.js";
import { Series } from "./chart.js";

/** How often the server is asked while the engine is looked at, and while it is not, in milliseconds. */
const OFTEN = 1000;
const SELDOM = 2000;

/**
 * The sums of a server's metrics by name, whatever their labels.
 * @param {string} text what /metrics answers
 */
export function parseMetrics(text) {
  /** @type {Map<string, number>} */
  const sums = new Map();
  for (const line of text.split("\n")) {
    const parts = line.match(/^([\w:]+)(?:\{.*\})? (\S+)$/);
    if (parts) sums.set(parts[1], (sums.get(parts[1]) ?? 0) + Number(parts[2]));
  }
  return (/** @type {string} */ name) => sums.get(name) ?? 0;
}

/** Asks the server how it is, and shows it. */
export class EngineView {
  constructor() {
    this.isShown = false;
    this.prefill = new Series("Prefill, tokens/s", "prefill");
    this.decode = new Series("Decode, tokens/s", "decode");
    this.requests = new Series("Requests", "requests");
    byId("charts").append(this.prefill.element, this.decode.element, this.requests.element);
    byId("clear-cache").addEventListener("click", () => this.#clear());
    document.addEventListener("visibilitychange", () => document.hidden || this.#look());
    this.#look();
  }

  /** @param {boolean} isShown */
  show(isShown) {
    this.isShown = isShown;
    if (isShown) this.#look();
  }

  /** Asks now, and again after a while. */
  async #look() {
    clearTimeout(this.next);
    if (document.hidden) return;
    const turn = (this.turn = Symbol("turn"));
    try {
      const metrics = parseMetrics(await (await send("metrics")).text());
      this.#measure(metrics, performance.now() / 1000);
      if (this.isShown) {
        const [cache, server] = await Promise.all([ask("v1/cache"), ask("server_info")]);
        this.#showAll(metrics, cache, server);
      }
      byId("engine-problem").hidden = true;
    } catch (error) {
      this.before = undefined;
      byId("engine-problem").textContent = /** @type {Error} */ (error).message;
      byId("engine-problem").hidden = false;
    }
    if (turn === this.turn) this.next = setTimeout(() => this.#look(), this.isShown ? OFTEN : SELDOM);
  }

  /**
   * Adds to the charts what has been done since the last look.
   * @param {(name: string) => number} metrics
   * @param {number} now seconds
   */
  #measure(metrics, now) {
    const [running, waiting] = ["running", "waiting"].map((state) => metrics(`vllm:num_requests_${state}`));
    const counts = {
      now,
      steps: metrics("vllm:iteration_tokens_total_sum"),
      answers: metrics("vllm:generation_tokens_total"),
      firsts: metrics("vllm:time_to_first_token_seconds_count"),
    };
    const { before } = this;
    this.before = counts;
    this.requests.add(now, running + waiting);
    // A server that has started anew counts from zero.
    if (!before || counts.steps < before.steps || now - before.now < 0.2) return;
    const answers = counts.answers - before.answers;
    // A step computes prompts, and of each answer all tokens but the first, which its prompt's last token gives.
    const decoded = answers - (counts.firsts - before.firsts);
    const prompts = counts.steps - before.steps - decoded;
    this.prefill.add(now, Math.max(0, prompts) / (now - before.now));
    this.decode.add(now, Math.max(0, answers) / (now - before.now));
  }

  /**
   * @param {(name: string) => number} metrics
   * @param {any} cache
   * @param {any} server
   */
  #showAll(metrics, cache, server) {
    for (const series of [this.prefill, this.decode, this.requests]) series.show();
    showNow(metrics, server);
    showPool(cache);
    showHits(cache);
    showMemory(cache, server);
    showQuality(server);
    showModel(server);
  }

  async #clear() {
    const problem = byId("engine-problem");
    try {
      await ask("v1/cache", { method: "DELETE" });
      await this.#look();
    } catch (error) {
      problem.textContent = /** @type {Error} */ (error).message;
      problem.hidden = false;
    }
  }
}

/**
 * A bar of parts of a whole, with its legend.
 * @param {string} id
 * @param {string} label
 * @param {number} whole
 * @param {[string, string, number, string][]} parts class, name, size and size in words
 */
function bar(id, label, whole, parts) {
  const share = (/** @type {number} */ size) => `${Math.max(0, Math.min(100, (100 * size) / (whole || 1)))}%`;
  const words = parts.map(([, name, , size]) => `${name} ${size}`).join(", ");
  const pieces = parts.map(([kind, , size]) => {
    const piece = make(`span.${kind}`);
    piece.style.width = share(size);
    return piece;
  });
  const legend = parts.map(([kind, name, , size]) =>
    make("li", {}, make(`span.key.${kind}`), `${name} `, make("b", {}, size)),
  );
  fill(
    byId(id),
    make("div.bar", { role: "img", "aria-label": `${label}: ${words}` }, ...pieces),
    make("ul.legend", {}, ...legend),
  );
}

/**
 * @param {string} id
 * @param {[string, string | number][]} pairs
 */
function facts(id, pairs) {
  fill(byId(id), ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/** @param {(name: string) => number} metrics @param {any} server */
function showNow(metrics, server) {
  facts("now", [
    ["Running", `${number(metrics("vllm:num_requests_running"))} of ${number(server.max_running_requests)}`],
    ["Waiting", `${number(metrics("vllm:num_requests_waiting"))} of ${number(server.max_queued_requests)}`],
    ["Answers so far", number(metrics("vllm:e2e_request_latency_seconds_count"))],
    ["Preempted", number(metrics("vllm:num_preemptions_total"))],
    ["Refused for want of memory", number(metrics("tallow_requests_shed_total"))],
  ]);
}

/** @param {any} cache */
function showPool({ blocks, snapshots, disk, enabled }) {
  const size = (/** @type {number} */ count) => `${number(count * blocks.tokens_per_block)} tokens`;
  bar("pool", "The pool", blocks.total, [
    ["held", "held", blocks.held, size(blocks.held)],
    ["cached", "cached", blocks.cached, size(blocks.cached)],
    ["free", "free", blocks.free, size(blocks.free)],
  ]);
  const rows = /** @type {[string, string][]} */ ([
    [
      "Blocks",
      `${number(blocks.total)} of ${number(blocks.tokens_per_block)} tokens, ${bytes(blocks.bytes_per_block)} each`,
    ],
    ["Reuse of prompts", enabled ? "on" : "off"],
  ]);
  if (snapshots.capacity)
    rows.push(["Snapshots of states", `${number(snapshots.kept)} of ${number(snapshots.capacity)}`]);
  rows.push([
    "On disk",
    disk ? `${bytes(disk.bytes)} of ${bytes(disk.limit)}, ${number(disk.values)} values` : "nothing is kept there",
  ]);
  if (disk) {
    rows.push(["Written today", `${bytes(disk.written_today)} of ${bytes(disk.writes_per_day)}`]);
    rows.push(["Writing", disk.staged_bytes ? `${bytes(disk.staged_bytes)} wait` : disk.state]);
  }
  facts("pool-facts", rows);
}

/** @param {any} cache */
function showHits({ totals, requests }) {
  const computed = totals.queried - totals.memory - totals.disk;
  const size = (/** @type {number} */ tokens) =>
    `${number(tokens)} (${number((100 * tokens) / (totals.queried || 1))} %)`;
  bar("hits", "Tokens of prompts", totals.queried, [
    ["cached", "from memory", totals.memory, size(totals.memory)],
    ["disk", "from disk", totals.disk, size(totals.disk)],
    ["computed", "computed", computed, size(computed)],
  ]);
  const cell = (/** @type {number} */ value) => make("td.right", {}, number(value));
  fill(
    byId("prefixes"),
    ...requests
      .slice(0, 20)
      .map((/** @type {any} */ request) =>
        make(
          "tr",
          {},
          make("td", {}, make("code", {}, request.id)),
          cell(request.prompt),
          cell(request.memory),
          cell(request.disk),
          cell(request.computed),
          make("td", {}, request.miss ?? "all that was known was used"),
        ),
      ),
  );
  byId("no-prefixes").hidden = requests.length > 0;
}

/** @param {any} cache @param {any} server */
function showMemory({ blocks }, { memory, memory_pressure: pressure }) {
  const pool = blocks.total * blocks.bytes_per_block;
  const { total, free, resident, weights } = memory;
  if (total) {
    const other = Math.max(0, total - free - resident);
    bar("memory", "The machine's memory", total, [
      ["held", "this server", resident, bytes(resident)],
      ["computed", "all else", other, bytes(other)],
      ["free", "free", free, bytes(free)],
    ]);
  }
  facts("memory-facts", [
    ["Memory", total ? bytes(total) : "not known here"],
    ["Weights", bytes(weights)],
    ["Set aside for the K/V cache", bytes(pool)],
    ["Pressure", pressure],
  ]);
}

/** @param {any} server */
function showQuality({ kv_cache_dtype: used, kv_divergence: measured }) {
  const rows = measured.presets.map((/** @type {any} */ preset) => {
    const pair = preset.k === preset.v ? preset.k : `${preset.k}/${preset.v}`;
    const isFloat = [preset.k, preset.v].every((format) => /^b?f\d+$/.test(format));
    const verdict = isFloat
      ? "stores floats"
      : preset.kl === null
        ? "not measured"
        : preset.kl <= measured.limit
          ? "within the limit"
          : "above the limit";
    return make(
      "tr",
      { class: pair === used ? "used" : null },
      make("th", { scope: "row" }, preset.name, pair === used && make("b.tag", {}, "in use")),
      make("td", {}, pair),
      make("td.right", {}, preset.kl === null ? "-" : preset.kl.toFixed(4)),
      make("td", {}, verdict),
    );
  });
  fill(byId("quality"), ...rows);
  byId("quality-words").textContent = measured.tokens
    ? `KL divergence of the next token from that with an exact cache, nats, on this model over ${number(measured.tokens)} tokens. --kv-preset auto takes none above ${measured.limit}.`
    : "Nothing has been measured on this model yet. With --kv-preset auto an idle server does it, once for a model.";
}

/** @param {any} server */
function showModel(server) {
  facts("model", [
    ["Model", server.served_model_name],
    ["From", server.model_path],
    ["Longest context", `${number(server.context_length)} tokens`],
    ["K/V formats", server.kv_cache_dtype],
    ["Version", server.version],
  ]);
}
