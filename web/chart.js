// A number over the last minutes, as a line.
import { draw, make, number } from "./dom.js";

/** What a chart shows at most and at least, in seconds. */
const SPAN = 300;
const LEAST = 60;
const WIDTH = 600;
const HEIGHT = 120;

/** A chart of one number. */
export class Series {
  /**
   * @param {string} title
   * @param {string} kind the class of its line
   */
  constructor(title, kind) {
    this.title = title;
    /** @type {{ at: number, value: number }[]} */
    this.points = [];
    this.line = draw("polyline", { class: kind });
    this.area = draw("polygon", { class: `${kind} area` });
    this.svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", preserveAspectRatio: "none" });
    this.value = make("b");
    this.since = make("span");
    this.most = make("span.most");
    this.svg.append(this.area, this.line);
    this.element = make(
      "figure.chart",
      {},
      make("figcaption", {}, title, this.value),
      this.svg,
      make("div.axis", {}, this.since, this.most, make("span", {}, "now")),
    );
  }

  /**
   * @param {number} at seconds
   * @param {number} value
   */
  add(at, value) {
    this.points.push({ at, value });
    while (this.points[0].at < at - SPAN) this.points.shift();
  }

  /** Draws the line anew. */
  show() {
    const now = this.points.at(-1)?.at ?? 0;
    const most = Math.max(...this.points.map(({ value }) => value), 0);
    const top = roundUp(most);
    const first = this.points[0];
    const span = Math.max(LEAST, now - (first?.at ?? now));
    this.since.textContent = `${number(span / 60, 1)} min ago`;
    const x = (/** @type {number} */ at) => (WIDTH * (1 - (now - at) / span)).toFixed(1);
    const y = (/** @type {number} */ value) => (HEIGHT - 2 - ((HEIGHT - 6) * value) / top).toFixed(1);
    const line = this.points.map(({ at, value }) => `${x(at)},${y(value)}`).join(" ");
    this.line.setAttribute("points", line);
    this.area.setAttribute("points", first ? `${x(first.at)},${HEIGHT} ${line} ${x(now)},${HEIGHT}` : "");
    const last = this.points.at(-1)?.value ?? 0;
    this.value.textContent = number(last, last < 100 ? 1 : 0);
    this.most.textContent = `highest ${number(most, most < 100 ? 1 : 0)}`;
    this.svg.setAttribute(
      "aria-label",
      `${this.title}: now ${number(last, 1)}, at most ${number(most, 1)} in ${number(span / 60, 1)} minutes`,
    );
  }
}

/**
 * The next of 1, 2 and 5 times a power of ten.
 * @param {number} value
 */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((bound) => bound >= value) ?? value;
}
