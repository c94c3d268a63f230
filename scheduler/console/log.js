// What happened: events as they come, newest first, and the alerts that Alertmanager sent.

import { clock, element, find, keyed, text } from "./dom.js";
import { placed } from "./jobs.js";

const KEPT = 200;
const GRAVE = new Set(["job.failed", "job.timed_out", "job.requeued", "node.unreachable", "node.held", "gpu.cordoned", "canary.failed"]);
const GOOD = new Set(["job.succeeded", "node.healthy", "node.released", "node.undrained", "gpu.uncordoned"]);

/** An event as a subject and what became of it. */
export function told(event) {
  const [kind, verb] = event.type.split(".");
  const done = verb.replace("_", " ");
  if (kind === "job") {
    const where = verb === "assigned" || verb === "running" ? placed(event.placement ?? []) : "";
    return [event.name, [done, where, event.reason].filter(Boolean).join(" · ")];
  }
  if (kind === "gpu") return [`${event.node} · GPU ${event.gpu}`, because(done, event)];
  if (kind === "canary") {
    const place = [event.node, event.gpu].filter((part) => part !== null).join(" · GPU ");
    return [place, `canary job failed · ${event.reason ?? "no reason given"} · strike ${event.strikes}`];
  }
  if (kind === "node") return [event.subject, because(done, event)];
  if (kind === "workload") return ["workload", `${event.jobs_per_minute} jobs per minute`];
  const place = event.node && [event.node, event.gpu].filter((part) => part !== null && part !== undefined).join(" · ");
  return [event.subject, [event.status, place, event.effect].filter(Boolean).join(" · ")];
}

function because(done, { reason, owner }) {
  const who = owner === "person" ? "by a person" : owner === "stethos" ? "by Stethos" : "";
  return [done, who, reason].filter(Boolean).join(" · ");
}

const toneOf = ({ type, status }) =>
  GRAVE.has(type) || status === "firing" ? "grave" : GOOD.has(type) || status === "resolved" ? "good" : "plain";

export class EventLog {
  #list = find("events");
  #waiting = [];

  take(event) {
    this.#waiting.push(event);
    if (this.#waiting.length > KEPT) this.#waiting.shift();
  }

  /** Adds what came since; what is there already is not touched. */
  paint() {
    if (!this.#waiting.length) return;
    find("no-events").hidden = true;
    this.#list.prepend(...this.#waiting.splice(0).reverse().map(makeEvent));
    while (this.#list.childElementCount > KEPT) this.#list.lastElementChild.remove();
  }
}

function makeEvent(event) {
  const [subject, what] = told(event);
  const time = element("time", { datetime: event.time, title: event.time }, clock(event.time));
  const words = element("span", {}, element("b", {}, subject), ` ${what}`);
  return element("li", { class: toneOf(event), "data-type": event.type, "data-sequence": event.sequence }, time, words);
}

/** Of each alert what was told of it last: `received` has every notification, newest first. */
export function paintAlerts(received) {
  const alerts = [...Map.groupBy(received, ({ labels }) => JSON.stringify(labels)).values()].map(([newest]) => newest);
  find("no-alerts").hidden = alerts.length > 0;
  const firing = alerts.filter((alert) => alert.status === "firing").length;
  text(find("firing"), firing ? `${firing} firing` : "");
  const key = ({ labels }) => JSON.stringify(labels);
  keyed(find("alerts"), alerts, key, makeAlert, (row, alert) => {
    const [head, what] = row.children;
    row.className = `alert is-${alert.status} ${alert.severity ?? ""}`;
    text(head.children[0], alert.status === "firing" ? "▲" : "✓");
    text(head.children[1], alert.name);
    text(head.children[2], clock(alert.received_at));
    const place = [alert.node, alert.gpu].filter((part) => part !== null).join(" · ");
    text(what, [place, alert.status, alert.severity, alert.effect].filter(Boolean).join(" · "));
  });
}

const makeAlert = () =>
  element(
    "li",
    {},
    element("div", { class: "job-line" }, element("span", { "aria-hidden": "true" }), element("b", {}), element("time", {})),
    element("p", {}),
  );
