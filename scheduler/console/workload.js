// The load generator: a slider that gives the low rates as much room as the high ones, and the server's presets.

import { attempt, get, put } from "./api.js";
import { attribute, element, find, keyed, text } from "./dom.js";

const LOWEST = 0.1;
const HIGHEST = 50;

/** Slider positions 1 to 100 are rates 0.1 to 50 on a logarithmic scale; 0 is off. */
function rateAt(position) {
  if (position <= 0) return 0;
  const rate = LOWEST * (HIGHEST / LOWEST) ** ((position - 1) / 99);
  return rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate);
}

function positionOf(rate) {
  return rate < LOWEST ? 0 : 1 + (99 * Math.log(rate / LOWEST)) / Math.log(HIGHEST / LOWEST);
}

const spoken = (rate) => (rate ? `${rate} jobs per minute` : "off");

export class WorkloadControl {
  #slider = find("rate");
  #presets = [];
  #held = false;

  constructor(state) {
    this.state = state;
    this.#slider.addEventListener("input", () => {
      this.#held = true;
      this.#show(rateAt(Number(this.#slider.value)));
    });
    this.#slider.addEventListener("change", () => {
      const rate = rateAt(Number(this.#slider.value));
      this.#set(rate, { jobs_per_minute: rate });
    });
  }

  async read() {
    this.#presets = Object.entries((await get("/v1/workload")).presets);
    this.paint();
  }

  /** Shows the server's rate, unless a person is about to change it. */
  paint() {
    const rate = this.state.fleet?.workload.jobs_per_minute;
    if (rate === undefined || this.#held) return;
    this.#slider.value = positionOf(rate);
    this.#show(rate);
  }

  async #set(rate, wanted) {
    this.#held = true;
    this.#slider.value = positionOf(rate);
    this.#show(rate);
    const answer = await attempt("set the workload", () => put("/v1/workload", wanted));
    if (answer && this.state.fleet) this.state.fleet.workload = answer;
    this.#held = false;
    this.paint();
  }

  #show(rate) {
    text(find("rate-shown"), rate ? rate.toLocaleString("en") : "off");
    find("rate-unit").hidden = !rate;
    attribute(this.#slider, "aria-valuetext", spoken(rate));
    const pressed = (button, [, its]) => attribute(button, "aria-pressed", its === rate);
    keyed(find("presets"), this.#presets, String, this.#button, pressed);
  }

  #button = ([name, rate]) => {
    const made = element("button", { type: "button" }, name, element("small", {}, rate));
    made.addEventListener("click", () => this.#set(rate, { preset: name }));
    return made;
  };
}
