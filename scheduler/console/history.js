// What a GPU or a node has been through: what ran there and where it went, and its states with who did it and why.

import { get, nodePath } from "./api.js";
import { clock, element, find, keyed, text } from "./dom.js";
import { placed } from "./jobs.js";

const CHANGES = {
  "gpu.cordoned": "taken out of service",
  "gpu.probation": "on probation",
  "gpu.uncordoned": "back in service",
  "gpu.cooling": "cooled by a lower power limit",
  "gpu.cooled": "at its own power limit again",
  "node.held": "node taken out of service",
  "node.probation": "node on probation",
  "node.released": "node back in service",
  "node.draining": "node draining",
  "node.drained": "node drained",
  "node.undrained": "node takes work again",
  "node.unreachable": "node unreachable",
  "node.healthy": "node answers",
  "node.registered": "node registered",
  "node.removed": "node removed",
  "node.reset": "node reset: its faults were ended",
};
const OWNERS = { person: "a person", stethos: "Stethos" };

export class History {
  #shown = "";

  /** Reads the history of what is selected. An answer that comes after another selection is dropped. */
  async read({ node, gpu } = {}) {
    const key = JSON.stringify([node, gpu]);
    if (this.#shown !== key) this.#paint({ jobs: [], changes: [] }, false);
    this.#shown = key;
    if (node === undefined) return;
    const path = `${nodePath(node)}/history?limit=12${gpu === undefined ? "" : `&gpu=${gpu}`}`;
    const found = await get(path).catch(() => null);
    if (found && this.#shown === key) this.#paint(found, true);
  }

  #paint({ jobs, changes }, read) {
    keyed(find("ran-here"), jobs, (one) => `${one.job} ${one.placed_at}`, makeStay, paintStay);
    keyed(find("changes"), changes, (one) => one.sequence, makeChange, () => {});
    find("ran-none").hidden = !read || jobs.length > 0;
    find("changes-none").hidden = !read || changes.length > 0;
  }
}

const makeStay = () => element("li", {}, element("div", { class: "job-line" }, element("b", {}), element("time", {})), element("p", {}));

function paintStay(row, { name, state, job_state: now, gpus, placed_at: from, reason, went_to: next }) {
  const [head, what] = row.children;
  text(head.firstElementChild, name);
  text(head.lastElementChild, clock(from));
  const moved = next.length ? `went on to ${placed(next)} (${now.replace("_", " ")})` : now === "queued" ? "waits again" : "";
  text(what, [`GPU ${gpus.join(", ")}`, state.replace("_", " "), reason, moved].filter(Boolean).join(" · "));
}

function makeChange({ type, time, reason, owner }) {
  const by = OWNERS[owner] ? `by ${OWNERS[owner]}` : "";
  const words = [CHANGES[type] ?? type.replace(".", " "), by, reason].filter(Boolean).join(" · ");
  return element("li", {}, element("time", { datetime: time, title: time }, clock(time)), element("span", {}, words));
}
