// The last ten minutes as lines: throughput, wait, utilisation, scores. Plain SVG, so many points and no more.

import { attribute, find, span, text } from "./dom.js";

const KEPT = 240;
const STEP_MS = 2500;
const [WIDTH, HEIGHT] = [240, 64];
const SVG = "http://www.w3.org/2000/svg";

const count = (value) => String(Math.round(value * 100) / 100);
const CHARTS = [
  { id: "throughput", unit: count, floor: 1, of: ({ queue }) => queue.finished_per_minute },
  { id: "wait", unit: span, floor: 10, of: ({ queue }) => queue.oldest_seconds },
  { id: "utilization", unit: (value) => `${Math.round(value * 100)} %`, floor: 1, of: ({ utilization }) => utilization },
  { id: "scores", unit: (value) => value.toFixed(2), floor: 1.25, limit: 1, of: (_, worst) => worst },
];

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export class Charts {
  #times = [];
  #values = CHARTS.map(() => []);
  #drawn = CHARTS.map(({ id, limit }) => makeChart(find(`chart-${id}`), limit));

  /** Takes the newest answer of /v1/fleet, and the worst score (null where there is none). */
  take(fleet, worst) {
    const now = performance.now();
    if (this.#times.length && now - this.#times.at(-1) < STEP_MS - 200) return;
    this.#times.push(now);
    CHARTS.forEach(({ of }, index) => this.#values[index].push(of(fleet, worst)));
    if (this.#times.length > KEPT) for (const list of [this.#times, ...this.#values]) list.shift();
  }

  paint() {
    if (!this.#times.length) return;
    CHARTS.forEach((chart, index) => draw(chart, this.#drawn[index], this.#times, this.#values[index]));
    text(find("charts-span"), `last ${span((this.#times.at(-1) - this.#times[0]) / 1000)}`);
  }
}

function makeChart(parent, limit) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const area = shape("path", { class: "area" });
  const line = shape("path", { class: "line", "vector-effect": "non-scaling-stroke" });
  const threshold = shape("line", { class: "limit", x1: 0, x2: WIDTH, "vector-effect": "non-scaling-stroke" });
  svg.append(area, line, ...(limit ? [threshold] : []));
  parent.append(svg);
  return { parent, svg, area, line, threshold };
}

/** A gap stays a gap: nothing is drawn where there was no value, or no look for some time. */
function draw({ unit, floor, limit }, { parent, svg, area, line, threshold }, times, values) {
  const known = values.filter((value) => value !== null);
  const top = Math.max(floor, ...known);
  const y = (value) => HEIGHT - 2 - ((HEIGHT - 6) * value) / top;
  const from = times.at(-1) - (KEPT - 1) * STEP_MS;
  const x = (time) => Math.max(0, (WIDTH * (time - from)) / ((KEPT - 1) * STEP_MS));
  const [stroke, fill] = [[], []];
  let began = null;
  values.forEach((value, index) => {
    const apart = index > 0 && times[index] - times[index - 1] > 4 * STEP_MS;
    if ((value === null || apart) && began !== null) began = fill.push(`V${HEIGHT}H${began}Z`) && null;
    if (value === null) return;
    const [left, up] = [x(times[index]).toFixed(1), y(value).toFixed(1)];
    stroke.push(`${began === null ? "M" : "L"}${left},${up}`);
    fill.push(began === null ? `M${left},${HEIGHT}V${up}` : `L${left},${up}`);
    began ??= left;
  });
  if (began !== null) fill.push(`V${HEIGHT}H${began}Z`);
  line.setAttribute("d", stroke.join(""));
  area.setAttribute("d", fill.join(""));
  if (limit) for (const end of ["y1", "y2"]) threshold.setAttribute(end, y(limit));
  const now = values.at(-1);
  const [name, shown] = parent.querySelectorAll("dt, dd");
  text(shown, now === null ? "–" : unit(now));
  const range = known.length ? `, between ${unit(Math.min(...known))} and ${unit(Math.max(...known))}` : "";
  attribute(svg, "aria-label", `${name.textContent}: ${now === null ? "no value" : unit(now)}${range}`);
  text(parent.querySelector(".most"), known.length ? `highest ${unit(Math.max(...known))}` : "no value yet");
}
