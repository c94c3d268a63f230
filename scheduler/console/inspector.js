// The selected GPU or node with what can be done about it, and the list of what needs a look.

import { attempt, nodePath, post } from "./api.js";
import { attribute, byKeyboard, className, clock, confirmed, element, find, keyed, plural, rest, since, span, text } from "./dom.js";
import { HEALTH, gpuClasses, gpuLabel, stateGlyph, verdict } from "./fleet.js";
import { isBad, isDoubtful, nodeState } from "./state.js";

const LISTED = 6;

export class Inspector {
  #panel = find("inspector");

  /** `select(selection | null)` changes what is shown; `changed(node)` takes the node that an action answered. */
  constructor(state, select, changed) {
    Object.assign(this, { state, select, changed, selected: null });
    find("unselect").addEventListener("click", () => select(null));
    find("node-gpus").addEventListener("click", ({ target }) => {
      const cell = target.closest(".gpu");
      if (cell) select({ node: this.selected.node, gpu: Number(cell.dataset.gpu) });
    });
    find("attention").addEventListener("click", (event) => {
      const row = event.target.closest("button");
      if (row) select({ node: row.dataset.node, gpu: row.dataset.gpu && Number(row.dataset.gpu) }, byKeyboard(event));
    });
    const gpu = () => `${nodePath(this.selected.node)}/gpus/${this.selected.gpu}`;
    const node = () => nodePath(this.selected.node);
    this.#action("cordon", "Cordon it?", () => `${gpu()}/cordon`, "cordon-reason");
    this.#action("uncordon", "Lift it?", () => `${gpu()}/uncordon`);
    this.#action("drain", "Drain it?", () => `${node()}/drain`, "drain-reason");
    this.#action("undrain", "Undrain it?", () => `${node()}/undrain`);
    const pauseSeconds = () => ({ seconds: Number(find("pause-seconds").value) || null });
    this.#action("pause", "Pause it?", () => `${node()}/pause`, "pause-reason", pauseSeconds);
    this.#action("resume", "Resume it?", () => `${node()}/resume`);
    this.#action("reset", "End its faults?", () => `${node()}/reset`);
  }

  #action(id, question, path, reasonId, more = () => ({})) {
    const why = reasonId && find(reasonId);
    const button = find(id);
    why?.addEventListener("keydown", (event) => event.key === "Enter" && button.focus());
    // Asked before the confirmation: what nobody explains is a riddle to the next person.
    button.addEventListener("click", (event) => {
      if (!why || why.value.trim()) return;
      event.stopImmediatePropagation();
      why.focus();
      why.reportValidity();
    });
    confirmed(button, question, async () => {
      const here = document.activeElement === button;
      const answer = await attempt(`${id} ${this.selected.node}`, () =>
        post(path(), why ? { reason: why.value.trim(), ...more() } : undefined),
      );
      if (!answer) return;
      if (why) why.value = "";
      this.changed(answer);
      // Done, the button gives way to its opposite, perhaps before the answer; the keyboard goes on at the heading.
      const left = () => [button, document.body].includes(document.activeElement);
      if (here) requestAnimationFrame(() => left() && rest(find("inspector-title")));
    });
  }

  /** Takes the keyboard to what was just selected by it. */
  focus() {
    if (!this.#panel.hidden) rest(find("inspector-title"));
  }

  paint() {
    this.#paintAttention();
    const node = this.selected && this.state.nodes.get(this.selected.node);
    this.#panel.hidden = !node;
    if (!node) return;
    const gpu = this.state.gpu(node.node, this.selected.gpu);
    text(find("inspector-title"), gpu ? `${node.node} · GPU ${gpu.gpu}` : node.node);
    find("gpu-part").hidden = !gpu;
    if (gpu) this.#paintGpu(gpu);
    this.#paintNode(node);
  }

  #paintGpu(gpu) {
    className(find("swatch"), gpuClasses(gpu));
    text(find("score"), gpu.score === null ? "–" : gpu.score.toFixed(2));
    text(find("verdict"), gpu.score === null ? verdict(gpu) : `${verdict(gpu)} · ${span(gpu.score_age_seconds)} old`);
    paintAnomaly(gpu.anomaly);
    describe(find("gpu-facts"), [
      ["Health", `${gpu.health}: ${HEALTH[gpu.health] ?? ""}`],
      ["State", gpu.state],
      ["Job", gpu.job && `${gpu.job.name} · ${gpu.job.type} · ${gpu.job.priority}`],
      ["Cordon", gpu.cordon && `${gpu.cordon.reason} (${gpu.cordon.owner}, ${since(gpu.cordon.since)} ago)`],
      ["Cooling", gpu.cooling && cooling(gpu.cooling)],
      ["Model", gpu.model],
      ["UUID", gpu.uuid],
    ]);
    find("cordon-part").hidden = gpu.cordon !== null;
    find("uncordon").hidden = gpu.cordon === null;
  }

  #paintNode(node) {
    const state = nodeState(node);
    describe(find("node-facts"), [
      ["Node", `${node.node} · ${node.rack ?? "no rack"} · ${node.kind}`],
      ["State", `${stateGlyph(state)} ${state}`.trim()],
      ["Why", node.reason],
      ["Served", `${plural(node.reliability.attempts, "attempt")}, ${node.reliability.infrastructure_failures} failed by the machine`],
      ["Drain", node.drain && `by ${node.drain.owner}, ${since(node.drain.since)} ago`],
      ["Pause", node.pause && `${since(node.pause.since)} ago, ${until(node.pause)}`],
    ]);
    keyed(find("node-gpus"), node.gpus, (gpu) => `${node.node}/${gpu.gpu}`, makeCell, (cell, gpu) => {
      className(cell, gpuClasses(gpu));
      attribute(cell, "aria-label", gpuLabel(node, gpu));
      attribute(cell, "aria-pressed", gpu.gpu === this.selected.gpu);
    });
    find("drain-part").hidden = Boolean(node.drain);
    // What automation holds a node for is undone by `undrain`; a pause alone by `resume`.
    find("undrain").hidden = !node.drain && (state !== "held" || Boolean(node.pause));
    find("pause-part").hidden = Boolean(node.pause);
    find("resume").hidden = !node.pause;
    find("reset").hidden = node.kind !== "synthetic" || !this.state.fleet.synthetic;
  }

  #paintAttention() {
    const found = concerns(this.state.nodes.values());
    find("all-quiet").hidden = found.length > 0;
    const more = find("attention-more");
    more.hidden = found.length <= LISTED;
    text(more, `and ${found.length - LISTED} more`);
    keyed(find("attention"), found.slice(0, LISTED), (one) => one.key, makeConcern, (row, one) => {
      const [cell, name, why] = row.firstElementChild.children;
      className(cell, one.gpu ? gpuClasses(one.gpu) : "state-glyph");
      text(cell, one.glyph);
      text(name, one.name);
      text(why, one.why);
    });
  }
}

/** Bad and doubtful GPUs, the worst first; then nodes that take no work, and cordons. */
function concerns(nodes) {
  const found = [];
  for (const node of nodes) {
    const state = nodeState(node);
    if (state !== "healthy") {
      const why = node.reason ? `${state}: ${node.reason}` : state;
      found.push({ key: node.node, node, name: node.node, why, glyph: stateGlyph(state), rank: 0.5 });
    }
    for (const gpu of node.gpus) {
      const scored = isBad(gpu) || isDoubtful(gpu);
      if (!scored && !gpu.cordon) continue;
      const cause = gpu.anomaly?.cause ? `, ${gpu.anomaly.cause.replaceAll("_", " ")}` : "";
      const bad = scored && `${gpu.score.toFixed(2)}${cause}${gpu.health === "healthy" ? "" : `, ${gpu.health}`}`;
      const why = bad || `${gpu.health}: ${gpu.cordon.reason}`;
      const key = `${node.node}/${gpu.gpu}`;
      found.push({ key, node, gpu, name: `${node.node} · ${gpu.gpu}`, why, glyph: "", rank: scored ? gpu.score : 0.4 });
    }
  }
  return found.sort((a, b) => b.rank - a.rank);
}

const until = ({ until: end }) => (end ? `until ${clock(end)}` : "until it is resumed");
const cooling = ({ limit_watts: limit, usual_watts: usual, celsius }) =>
  `limited to ${Math.round(limit)} W instead of ${Math.round(usual)} W, since it was at ${Math.round(celsius)} °C`;

function makeConcern({ node, gpu }) {
  const place = { "data-node": node.node, "data-gpu": gpu ? gpu.gpu : null };
  const parts = [element("span", { "aria-hidden": "true" }), element("b", {}), element("span", {})];
  return element("li", {}, element("button", { type: "button", ...place }, ...parts));
}

const makeCell = (gpu) => element("button", { type: "button", "data-gpu": gpu.gpu });

/** Why the score is what it is: the cause, and the signals' shares as bars with numbers. */
function paintAnomaly(anomaly) {
  const shares = anomaly?.contributions ?? [];
  find("why-bad").hidden = !anomaly;
  find("cause").hidden = !anomaly?.cause;
  text(find("cause"), `Points to ${(anomaly?.cause ?? "").replaceAll("_", " ")}.`);
  const make = () =>
    element("li", {}, element("span", {}), element("meter", { min: 0, max: 1, "aria-hidden": "true" }), element("small", {}));
  keyed(find("contributions"), shares, (one) => one.signal, make, (row, { signal, share }) => {
    const [name, meter, words] = row.children;
    text(name, signal.replaceAll("_", " "));
    meter.value = share;
    text(words, `${Math.round(share * 100)} %`);
  });
}

function describe(list, facts) {
  const known = facts.filter(([, value]) => value);
  const make = ([name]) => element("div", {}, element("dt", {}, name), element("dd", {}));
  keyed(list, known, ([name]) => name, make, (row, [, value]) => text(row.lastElementChild, value));
}
