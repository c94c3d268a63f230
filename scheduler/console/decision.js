// Why a job waits, or why it is where it is: the scheduler's own account, and where the job has been.

import { get, jobPath, reason } from "./api.js";
import { clock, element, find, plural, text } from "./dom.js";
import { placed } from "./jobs.js";

const number = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(3));

export class Decision {
  #dialog = find("decision");

  constructor() {
    find("decision-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", ({ target }) => target === this.#dialog && this.#dialog.close());
  }

  async show(job) {
    text(find("decision-title"), job.name);
    text(find("decision-said"), "Asking the scheduler …");
    find("decision-body").replaceChildren();
    this.#dialog.showModal();
    try {
      const [decision, whole] = await Promise.all([get(`${jobPath(job.id)}/decision`), get(jobPath(job.id))]);
      text(find("decision-said"), verdict(decision, whole));
      find("decision-body").replaceChildren(...parts(decision, whole));
    } catch (error) {
      text(find("decision-said"), `No account of it: ${reason(error)}.`);
    }
  }
}

function verdict({ placed: chosen, reason: why, placement, time }, { state }) {
  const said = why ? `: ${why}` : "";
  if (state === "queued") return `It waits${said || ", and is looked at in the next pass"}.`;
  if (!chosen || !placement.length) return `${state.replace("_", " ")}${said}.`;
  return `Placed on ${placed(placement)} at ${clock(time)}; ${state.replace("_", " ")}${said}.`;
}

function parts({ candidates = [], counts = {} }, { attempts }) {
  const found = [];
  if (candidates.length) found.push(element("h3", {}, "How the nodes looked to it, best first"), table(candidates));
  const others = Object.entries(counts);
  if (others.length) {
    const rows = others.map(([why, nodes]) => element("li", {}, `${plural(nodes, "node")}: ${why}`));
    found.push(element("h3", {}, "All nodes"), element("ul", { class: "plain" }, ...rows));
  }
  if (attempts.length) found.push(element("h3", {}, "Where it has been"), element("ol", { class: "plain" }, ...attempts.map(attempt)));
  return found;
}

function table(candidates) {
  const head = ["Node", "", "Free", "Cost", "Why"].map((name) => element("th", { scope: "col" }, name));
  const rows = candidates.map((look) => {
    const terms = Object.entries(look.terms ?? {}).filter(([, value]) => value);
    const why = look.why_not ?? (terms.map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value)}`).join(", ") || "–");
    const mark = look.chosen ? "✓ chosen" : look.fits ? "fits" : "✕ does not fit";
    const cells = [mark, look.free, typeof look.cost === "number" ? number(look.cost) : "–", why];
    return element(
      "tr",
      { class: look.chosen ? "chosen" : null },
      element("th", { scope: "row" }, look.node),
      ...cells.map((value) => element("td", {}, String(value))),
    );
  });
  const made = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  return element("div", { class: "scrolls", tabindex: "0", role: "group", "aria-label": "Candidates" }, made);
}

function attempt({ placement, state, placed_at: from, finished_at: to, reason: why }) {
  const time = to ? `${clock(from)} to ${clock(to)}` : `since ${clock(from)}`;
  const words = [state.replace("_", " "), why].filter(Boolean).join(": ");
  return element("li", {}, element("b", {}, placed(placement)), ` ${time} · ${words}`);
}
