// Only for a synthetic fleet: what is wrong with it on purpose, more of it, and nodes that come and go.

import { Refused, attempt, get, nodePath, post, remove } from "./api.js";
import { confirmed, element, find, keyed, since, text } from "./dom.js";

const FAULTS = "/v1/synthetic/faults";
const NODES = "/v1/synthetic/nodes";
const SUGGESTED = 200;

const words = (kind) => kind.replaceAll("_", " ");
const place = ({ node, gpu, rack }) => rack ?? (gpu === null ? node : `${node} · GPU ${gpu}`);
const syntheticPath = (node) => `${NODES}/${encodeURIComponent(node)}`;

export class Faults {
  #panel = find("faults-panel");
  #form = find("inject");
  #kinds = new Map();
  #none = false;

  constructor(state) {
    Object.assign(this, { state, ask: () => {} });
    this.#form.elements.kind.addEventListener("change", () => this.#fit());
    this.#form.elements.severity.addEventListener("input", ({ target }) => text(find("severity-shown"), Number(target.value).toFixed(2)));
    this.#form.addEventListener("submit", (event) => this.#inject(event));
    find("add-node").addEventListener("submit", (event) => this.#addNode(event));
  }

  get available() {
    return this.#kinds.size > 0;
  }

  /** Asks only where there may be a synthetic fleet; a fleet that is none answers 404, once. */
  async read() {
    if (this.#none || !this.state.fleet?.synthetic) return;
    try {
      const { faults, kinds } = await get(FAULTS);
      this.#offer(kinds);
      this.#list(faults);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#kinds.clear();
      this.#none = error.status === 404;
    }
    this.#panel.hidden = !this.available;
  }

  /** What is selected in the fleet is the target that a person has in mind. */
  aim({ node, gpu }) {
    const { elements } = this.#form;
    elements.node.value = node;
    if (gpu !== undefined) elements.gpu.value = gpu;
    elements.rack.value = this.state.nodes.get(node)?.rack ?? "";
  }

  #offer(kinds) {
    if (this.#kinds.size === kinds.length) return;
    this.#kinds = new Map(kinds.map(({ kind, part }) => [kind, part]));
    const groups = Map.groupBy(kinds, ({ part }) => part);
    const made = [...groups].map(([part, members]) => {
      const options = members.map(({ kind }) => element("option", { value: kind }, words(kind)));
      return element("optgroup", { label: part === "gpu" ? "on a GPU" : `on a ${part}` }, ...options);
    });
    this.#form.elements.kind.replaceChildren(...made);
    if (this.#kinds.has("thermal_paste")) this.#form.elements.kind.value = "thermal_paste";
    const first = this.state.nodes.values().next().value;
    if (first && !this.#form.elements.node.value) this.aim({ node: first.node, gpu: 0 });
    this.#fit();
  }

  /** Only the fields that the kind's target has. */
  #fit() {
    const part = this.#kinds.get(this.#form.elements.kind.value);
    const wanted = { node: part !== "rack", gpu: part === "gpu", rack: part === "rack" };
    for (const [name, shown] of Object.entries(wanted)) {
      this.#form.elements[name].disabled = !shown;
      this.#form.elements[name].parentElement.hidden = !shown;
    }
    const names = [...this.state.nodes.keys()].slice(0, SUGGESTED);
    find("node-names").replaceChildren(...names.map((name) => element("option", { value: name })));
  }

  #list(faults) {
    find("faults-none").hidden = faults.length > 0;
    text(find("faults-count"), faults.length || "");
    keyed(find("faults"), faults, (fault) => fault.id, (fault) => this.#make(fault), (row, fault) => {
      text(row.lastElementChild, `${place(fault)} · severity ${fault.severity.toFixed(2)} · ${fault.onset} · ${since(fault.start)}`);
    });
  }

  #make(fault) {
    const label = `Clear ${words(fault.kind)} of ${place(fault)}`;
    const clear = element("button", { type: "button", class: "quiet cancel", "aria-label": label }, "Clear");
    clear.addEventListener("click", async () => {
      await attempt("clear the fault", () => remove(`${FAULTS}/${encodeURIComponent(fault.id)}`));
      this.ask();
    });
    return element("li", {}, element("div", { class: "job-line" }, element("b", {}, words(fault.kind)), clear), element("p", {}));
  }

  async #inject(event) {
    event.preventDefault();
    const form = new FormData(this.#form);
    const body = { kind: form.get("kind"), severity: Number(form.get("severity")), onset: form.get("onset") };
    for (const name of ["node", "rack"]) if (form.get(name)) body[name] = form.get(name).trim();
    if (form.get("gpu")) body.gpu = Number(form.get("gpu"));
    await attempt(`inject ${words(body.kind)}`, () => post(FAULTS, body));
    this.ask();
  }

  async #addNode(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    const body = { node: form.get("node").trim(), gpus: Number(form.get("gpus")), model: form.get("model") };
    if (await attempt(`add ${body.node}`, () => post(NODES, body))) {
      event.target.reset();
      text(find("spoken"), `${body.node} is on its way.`);
    }
  }
}

/** The inspector's button: a synthetic node leaves its fleet, another one is only forgotten. */
export function removal(faults, selected, gone) {
  confirmed(find("remove-node"), "Remove it?", async () => {
    const node = selected();
    if (!node) return;
    const synthetic = node.kind === "synthetic" && faults.available;
    const path = synthetic ? syntheticPath(node.node) : nodePath(node.node);
    if (await attempt(`remove ${node.node}`, () => remove(path))) gone(node);
  });
}
