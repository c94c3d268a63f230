// The scheduler's HTTP API, and how its refusals look on the page.

import { element, find, rest } from "./dom.js";

const TIMEOUT_MS = 10_000;
const NOTICE_MS = 12_000;

/** What the API refused, in its own words (RFC 9457). */
export class Refused extends Error {
  constructor(status, problem) {
    const wrong = (problem.errors ?? []).map((error) => `${error.pointer} ${error.detail}`).join("; ");
    const detail = problem.detail ?? problem.title ?? `HTTP ${status}`;
    super(wrong && !detail.includes(wrong) ? `${detail}: ${wrong}` : detail);
    this.status = status;
  }
}

async function call(method, path, body) {
  const headers = method === "GET" ? {} : { "X-Stethos-Console": "1", "Content-Type": "application/json" };
  const answer = await fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (answer.ok) return answer.headers.get("Content-Type")?.includes("json") ? answer.json() : null;
  throw new Refused(answer.status, await answer.json().catch(() => ({})));
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);
export const remove = (path) => call("DELETE", path);
export const put = (path, body) => call("PUT", path, body);

export const nodePath = (node) => `/v1/nodes/${encodeURIComponent(node)}`;
export const jobPath = (id) => `/v1/jobs/${encodeURIComponent(id)}`;

/** Why a call failed, for people. */
export function reason(error) {
  if (error instanceof Refused) return error.message;
  return error.name === "TimeoutError" ? "the scheduler did not answer in 10 s" : "the scheduler cannot be reached";
}

/** Shows a failure until it is read or some seconds have passed. */
function notice(message) {
  const close = element("button", { type: "button", class: "quiet icon", "aria-label": "Dismiss" }, "✕");
  const shown = element("li", {}, element("span", {}, message), close);
  close.addEventListener("click", () => {
    shown.remove();
    rest(find("title"));
  });
  setTimeout(() => shown.remove(), NOTICE_MS);
  find("notices").append(shown);
}

/** Runs an action of the user; a failure is shown, and the answer is null. An empty answer is true. */
export async function attempt(what, action) {
  try {
    return (await action()) ?? true;
  } catch (error) {
    notice(`Could not ${what}: ${reason(error)}`);
    return null;
  }
}
