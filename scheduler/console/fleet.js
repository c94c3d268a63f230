// The fleet as racks of nodes of GPU cells. One tab stop; the arrow keys move inside.

import { attribute, byKeyboard, className, element, find, keyed, rest, span, text } from "./dom.js";
import { isBad, isDoubtful, nodeState } from "./state.js";

const GLYPHS = { healthy: "", held: "◇", draining: "◐", drained: "■", unreachable: "✕" };
const NATURAL = new Intl.Collator("en", { numeric: true });
const DENSITIES = [[16, "roomy"], [160, "dense"], [Infinity, "tiny"]];

const selectionOf = (cell) => ({ node: cell.parentElement.parentElement.dataset.node, gpu: Number(cell.dataset.gpu) });

export const stateGlyph = (state) => GLYPHS[state];

/** The class names that say all that a cell shows: its colour step, and one mark for each fact. */
export function gpuClasses(gpu) {
  const classes = ["gpu", gpu.score === null ? "unknown" : `s${Math.min(10, Math.floor(gpu.score * 10))}`];
  if (isBad(gpu)) classes.push("bad");
  if (gpu.job) classes.push("busy");
  if (gpu.cordon || gpu.state === "cordoned") classes.push("cordoned");
  if (gpu.state === "unavailable") classes.push("unavailable");
  if (gpu.health === "probation" || gpu.health === "maintenance") classes.push(gpu.health);
  return classes.join(" ");
}

export function verdict(gpu) {
  if (gpu.score === null) return "no opinion";
  return isBad(gpu) ? "bad" : isDoubtful(gpu) ? "doubtful" : "good";
}

/** What each state of a GPU's health means, for people. */
export const HEALTH = {
  healthy: "takes work",
  suspect: "high score that nobody acts on yet",
  quarantined: "no new work; what runs may end",
  draining: "its job is being taken away",
  drained: "out of service, and nothing runs",
  probation: "a canary job has to succeed first",
  maintenance: "a person keeps it out of service",
  unreachable: "its node does not answer",
};

const score = (gpu) => (gpu.score === null ? "no score" : `score ${gpu.score.toFixed(2)}, ${verdict(gpu)}`);

export function gpuLabel(node, gpu) {
  const parts = [`${node.node} GPU ${gpu.gpu}`, gpu.state, score(gpu)];
  if (gpu.health !== "healthy" && gpu.health !== gpu.state) parts.push(gpu.health);
  if (gpu.anomaly?.cause) parts.push(`cause ${gpu.anomaly.cause.replaceAll("_", " ")}`);
  if (gpu.job) parts.push(`job ${gpu.job.name}`);
  if (gpu.cordon) parts.push(`cordoned: ${gpu.cordon.reason}`);
  return parts.join(", ");
}

export class Fleet {
  #root = find("fleet");
  #tip = find("tip");
  #order = [];
  #tabStop = null;
  /** What each tile shows, so that a node that stayed the same costs nothing. */
  #painted = new WeakMap();

  /** `select({node, gpu?}, keyboard)` is called when a person picks something. */
  constructor(state, select) {
    this.state = state;
    this.select = select;
    this.selected = null;
    this.#root.addEventListener("click", (event) => this.#click(event));
    this.#root.addEventListener("keydown", (event) => this.#key(event));
    this.#root.addEventListener("focusin", (event) => this.#focus(event.target));
    this.#root.addEventListener("focusout", () => (this.#tip.hidden = true));
    this.#root.addEventListener("pointerover", (event) => event.pointerType === "mouse" && this.#describe(event.target));
    this.#root.addEventListener("pointerleave", () => (this.#tip.hidden = true));
    this.#root.addEventListener("scroll", () => (this.#tip.hidden = true), { passive: true });
  }

  paint() {
    const racks = this.#racks();
    const count = this.state.nodes.size;
    this.#root.dataset.density = DENSITIES.find(([most]) => count <= most)[1];
    find("no-nodes").hidden = count > 0;
    keyed(this.#root, racks, ([name]) => name, makeRack, (row, [, nodes]) => {
      keyed(row.lastElementChild, nodes, (node) => node.node, makeNode, (tile, node) => this.#paintNode(tile, node));
    });
    if (!this.#tabStop?.isConnected) this.#stopAt(this.#root.querySelector(".gpu"));
  }

  /** Where the keyboard goes on when what was selected is closed. */
  focus({ node, gpu }) {
    const tile = this.#root.querySelector(`[data-node="${CSS.escape(node)}"]`);
    const place = gpu === undefined ? tile?.querySelector(".node-name") : this.#tabStop;
    if (place) place.focus({ preventScroll: true });
    else rest(find("fleet-title"));
  }

  #racks() {
    const names = [...this.state.nodes.keys()];
    // Sorting is redone only when nodes came or went.
    if (names.length !== this.#order.length || !this.#order.every((name) => this.state.nodes.has(name))) {
      this.#order = names.sort(NATURAL.compare);
    }
    const racks = Map.groupBy(this.#order.map((name) => this.state.nodes.get(name)), (node) => node.rack ?? "no rack");
    return [...racks].sort(([a], [b]) => NATURAL.compare(a, b));
  }

  #paintNode(tile, node) {
    const chosen = this.selected?.node === node.node ? `${this.selected.gpu}` : null;
    const before = this.#painted.get(tile);
    if (before?.node === node && before.chosen === chosen) return;
    this.#painted.set(tile, { node, chosen });
    const [head, cells] = tile.children;
    const state = nodeState(node);
    className(tile, `node is-${state}`);
    attribute(tile, "aria-label", `${node.node}, ${state}${node.reason ? `: ${node.reason}` : ""}`);
    attribute(head, "aria-pressed", this.selected?.node === node.node && this.selected.gpu === undefined);
    const busy = node.gpus.filter((gpu) => gpu.job).length;
    text(head.lastElementChild, state === "healthy" ? `${busy}/${node.gpus.length} busy` : `${GLYPHS[state]} ${state}`);
    keyed(cells, node.gpus, (gpu) => gpu.gpu, makeCell, (cell, gpu) => this.#paintCell(cell, node, gpu));
  }

  #paintCell(cell, node, gpu) {
    const chosen = this.selected?.node === node.node && this.selected.gpu === gpu.gpu;
    className(cell, gpuClasses(gpu));
    attribute(cell, "aria-label", gpuLabel(node, gpu));
    attribute(cell, "aria-pressed", chosen);
  }

  #click(event) {
    const { target } = event;
    const cell = target.closest(".gpu");
    const head = target.closest(".node-name");
    if (cell) this.#stopAt(cell);
    const keyboard = byKeyboard(event);
    if (cell) this.select(selectionOf(cell), keyboard);
    else if (head) this.select({ node: head.parentElement.dataset.node }, keyboard);
  }

  #stopAt(cell) {
    this.#tabStop?.setAttribute("tabindex", "-1");
    this.#tabStop = cell;
    cell?.setAttribute("tabindex", "0");
  }

  #focus(target) {
    if (!target.matches(".gpu")) return;
    this.#stopAt(target);
    if (target.matches(":focus-visible")) this.#describe(target);
  }

  #key(event) {
    const cell = event.target.closest(".gpu");
    const move = {
      ArrowRight: () => cell.nextElementSibling ?? this.#sibling(cell, 1)?.firstElementChild,
      ArrowLeft: () => cell.previousElementSibling ?? this.#sibling(cell, -1)?.lastElementChild,
      ArrowDown: () => this.#vertical(cell, 1),
      ArrowUp: () => this.#vertical(cell, -1),
      Home: () => cell.parentElement.firstElementChild,
      End: () => cell.parentElement.lastElementChild,
    }[event.key];
    if (!cell || !move) return;
    event.preventDefault();
    move()?.focus();
  }

  /** The cells of the node before or after, across racks. */
  #sibling(cell, step) {
    const cells = [...this.#root.querySelectorAll(".gpus")];
    return cells[cells.indexOf(cell.parentElement) + step];
  }

  /** The nearest cell of the next row: as the eye sees it, whatever the width. */
  #vertical(cell, step) {
    const here = cell.getBoundingClientRect();
    const cells = [...this.#root.querySelectorAll(".gpu")];
    let [best, distance, row] = [null, Infinity, null];
    for (let i = cells.indexOf(cell) + step; i >= 0 && i < cells.length; i += step) {
      const there = cells[i].getBoundingClientRect();
      if ((there.top - here.top) * step < here.height / 2) continue;
      row ??= there.top;
      if (Math.abs(there.top - row) > here.height / 2) break;
      if (Math.abs(there.left - here.left) >= distance) continue;
      [best, distance] = [cells[i], Math.abs(there.left - here.left)];
    }
    return best;
  }

  #describe(target) {
    const cell = target.closest(".gpu");
    const chosen = cell && selectionOf(cell);
    const gpu = chosen && this.state.gpu(chosen.node, chosen.gpu);
    this.#tip.hidden = !gpu;
    if (!gpu) return;
    const lines = [element("b", {}, `${chosen.node} · GPU ${gpu.gpu}`), score(gpu)];
    if (gpu.score !== null) lines[1] += `, ${span(gpu.score_age_seconds)} old`;
    lines.push(gpu.job ? `${gpu.state}: ${gpu.job.name}` : gpu.state);
    if (gpu.health !== "healthy") lines.push(`${gpu.health}: ${HEALTH[gpu.health] ?? ""}`);
    if (gpu.cordon) lines.push(`cordoned: ${gpu.cordon.reason}`);
    for (const { signal, share } of gpu.anomaly?.contributions ?? []) lines.push(`${signal}: ${Math.round(share * 100)} %`);
    this.#tip.replaceChildren(...lines.map((line) => element("span", {}, line)));
    const box = cell.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.#tip;
    const above = box.top - height - 8;
    this.#tip.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, box.left + box.width / 2 - width / 2))}px`;
    this.#tip.style.top = `${above > 64 ? above : box.bottom + 8}px`;
  }
}

const makeRack = ([name]) =>
  element("section", { class: "rack" }, element("h3", {}, name), element("div", { class: "nodes" }));

function makeNode(node) {
  const head = element(
    "button",
    { type: "button", class: "node-name", title: node.node },
    element("span", {}, node.node),
    element("small", {}),
  );
  return element("div", { role: "group", "data-node": node.node }, head, element("div", { class: "gpus" }));
}

const makeCell = (gpu) => element("button", { type: "button", tabindex: "-1", "data-gpu": gpu.gpu });
