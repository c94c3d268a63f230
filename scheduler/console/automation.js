// What the automation holds and why, how far it may go, and the way to stop it: a person's word overrules it.

import { attempt, get, nodePath, post } from "./api.js";
import { byKeyboard, className, confirmed, element, find, keyed, plural, since, text } from "./dom.js";

const LISTED = 8;
const SOURCES = { score: "by score", "fast-fail": "jobs failed at once" };

const sourceName = (source) => SOURCES[source] ?? (source.startsWith("alert:") ? "by alert" : source);
const place = ({ node, gpu }) => (gpu === null ? node : `${node} · ${gpu}`);
const keyOf = (one) => `${one.node}/${one.gpu}`;

export class Automation {
  /** `select(place)` shows a place; `changed(node)` takes the node that an overruling answered. */
  constructor(select, changed) {
    Object.assign(this, { select, changed, ask: () => {} });
  }

  async read() {
    const { policy, breaker, holds: single, probations, left_alone: alone } = await get("/v1/remediation");
    // A person's word goes for the place, whoever holds it.
    const holds = [...Map.groupBy(single, place)].map(([, reasons]) => ({ ...reasons[0], reasons }));
    text(find("automation-mode"), policy.dry_run ? "Dry run" : "Acting");
    className(find("automation-mode"), policy.dry_run ? "count dry" : "count");
    text(find("automation-said"), summary(policy, holds, probations));
    this.#paintBreaker(breaker);
    const make = (one) => this.#makeHold(one);
    keyed(find("holds"), holds.slice(0, LISTED), keyOf, make, (row, hold) => {
      const why = hold.reasons.map(({ reason, source }) => `${reason} (${sourceName(source)})`);
      const evicts = hold.reasons.some((each) => each.evict) && "its job is taken away";
      text(row.children[1], [...why, evicts, `${since(hold.since)} ago`].filter(Boolean).join(" · "));
    });
    keyed(find("probations"), probations.slice(0, LISTED), keyOf, make, (row, one) => {
      const how = one.canary ? "a canary job runs" : "waits for its canary job";
      text(row.children[1], `on probation: ${how}${one.strikes ? `, ${plural(one.strikes, "strike")}` : ""}`);
    });
    keyed(find("left-alone"), alone.slice(0, LISTED), keyOf, (one) => this.#makePlace(one), (row, one) => {
      text(row.children[1], `not held: ${one.why}`);
    });
    const more = [holds, probations, alone].reduce((sum, list) => sum + Math.max(0, list.length - LISTED), 0);
    find("automation-more").hidden = more === 0;
    text(find("automation-more"), `and ${more} more; /v1/remediation lists them all`);
  }

  /** The fleet, and the racks of which something is held. */
  #paintBreaker(domains) {
    const told = domains.filter((each) => each.domain === "fleet" || each.held > 0).slice(0, LISTED);
    keyed(find("breaker"), told, (each) => each.domain, makeDomain, (row, { domain, held, bound, gpus, open }) => {
      const [name, meter, words] = row.children;
      text(name, domain);
      Object.assign(meter, { max: Math.max(1, bound), value: held });
      text(words, `${held} of ${Math.min(bound, gpus)} allowed${open ? " · ✕ breaker open" : ""}`);
      row.className = open ? "open" : "";
    });
  }

  #makePlace(one) {
    const shown = element("button", { type: "button", class: "link" }, place(one));
    shown.addEventListener("click", (event) => this.select({ node: one.node, gpu: one.gpu ?? undefined }, byKeyboard(event)));
    return element("li", {}, element("div", { class: "job-line" }, shown), element("p", {}));
  }

  #makeHold(one) {
    const row = this.#makePlace(one);
    const path = one.gpu === null ? `${nodePath(one.node)}/undrain` : `${nodePath(one.node)}/gpus/${one.gpu}/uncordon`;
    const label = `Overrule: ${place(one)} back into service`;
    const button = element("button", { type: "button", class: "quiet cancel", "aria-label": label }, "Overrule");
    confirmed(button, "Overrule it?", async () => {
      const node = await attempt(`overrule the hold of ${place(one)}`, () => post(path));
      if (node) this.changed(node);
      this.ask();
    });
    row.firstElementChild.append(button);
    return row;
  }
}

function summary(policy, holds, probations) {
  if (policy.dry_run) return "It tells what it would hold, and holds nothing.";
  if (!holds.length && !probations.length) return "It holds nothing.";
  const found = [holds.length && `holds ${plural(holds.length, "place")}`, probations.length && `tries ${probations.length} out`];
  return `It ${found.filter(Boolean).join(" and ")}. Overrule puts a place back into service; what is known now does not bring it back.`;
}

const makeDomain = () => element("li", {}, element("span", {}), element("meter", { min: 0, "aria-hidden": "true" }), element("small", {}));
