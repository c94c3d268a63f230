// Jobs as they move from waiting to running to finished, and the form that submits one.

import { attempt, jobPath, post, reason } from "./api.js";
import { byKeyboard, confirmed, element, find, keyed, plural, since, span, text } from "./dom.js";

const ENDINGS = { succeeded: "✓", failed: "✕", cancelled: "⊘", timed_out: "◷" };
const STANDARD_TIMEOUT_SECONDS = 300;

const ending = (state) => `${ENDINGS[state]} ${state.replace("_", " ")}`;

/** node-01 · 0–3, 6 */
export const placed = (placement) => placement.map((share) => `${share.node} · ${ranges(share.gpus)}`).join("; ");

function ranges(numbers) {
  const runs = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run && number === run[1] + 1) run[1] = number;
    else runs.push([number, number]);
  }
  const short = ([first, last]) => (first === last ? first : `${first}${last - first > 1 ? "–" : ", "}${last}`);
  return runs.map(short).join(", ");
}

export class Jobs {
  #submitting = false;

  /** `select({node, gpu})` shows where a job runs, `explain(job)` why. */
  constructor(state, select, submitted, explain) {
    Object.assign(this, { state, select, submitted, explain });
    find("job-filter").addEventListener("input", () => this.paint());
    find("submit").addEventListener("submit", (event) => this.#submit(event));
    setInterval(() => this.tick(), 1000);
  }

  paint() {
    const counts = this.state.fleet?.queue ?? {};
    const waiting = this.state.inState("queued").sort((a, b) => (a.submitted_at < b.submitted_at ? 1 : -1));
    const running = this.state.inState("assigned", "running").sort((a, b) => (began(a) < began(b) ? 1 : -1));
    const lists = { waiting, running, finished: this.state.finished };
    const totals = {
      waiting: counts.queued,
      running: counts.running + counts.assigned,
      finished: counts.succeeded + counts.failed + counts.cancelled + counts.timed_out,
    };
    const wanted = find("job-filter").value.trim().toLowerCase();
    for (const [name, all] of Object.entries(lists)) {
      const jobs = wanted ? all.filter((job) => matches(job, wanted)) : all;
      keyed(find(name), jobs, (job) => job.id, (job) => this.#make(job), paintJob);
      // The count of all of them comes with the fleet; until then, and right after an event, the list knows better.
      text(find(`lane-${name}`), wanted ? `${jobs.length} of ${all.length}` : Math.max(all.length, totals[name] || 0));
      find(`${name}-none`).hidden = jobs.length > 0;
    }
    this.tick();
  }

  tick() {
    for (const time of document.querySelectorAll("time[data-since]")) text(time, since(time.dataset.since));
  }

  #make(job) {
    const cancel = element("button", { type: "button", class: "quiet cancel", "aria-label": `Cancel ${job.name}` }, "Cancel");
    confirmed(cancel, "Cancel it?", () => attempt(`cancel ${job.name}`, () => post(`${jobPath(job.id)}/cancel`)));
    const why = element("button", { type: "button", class: "quiet ask", "aria-label": `Why: ${job.name}` }, "Why?");
    why.addEventListener("click", () => this.explain(this.state.jobs.get(job.id) ?? job));
    const place = element("button", { type: "button", class: "link place" });
    place.addEventListener("click", (event) => {
      const [share] = this.state.jobs.get(job.id)?.placement ?? [];
      if (share) this.select({ node: share.node, gpu: share.gpus[0] }, byKeyboard(event));
    });
    return element(
      "li",
      { "data-job": job.id },
      element("div", { class: "job-line" }, element("b", { title: job.id }), element("time", {})),
      element("div", { class: "job-line" }, element("span", { class: "what" }), why, cancel),
      place,
      element("p", { class: "why" }),
    );
  }

  async #submit(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    const duration = form.get("duration") === "" ? null : Number(form.get("duration"));
    const body = { type: form.get("type"), gpus: Number(form.get("gpus")), priority: form.get("priority") };
    if (form.get("name").trim()) body.name = form.get("name").trim();
    if (duration !== null) {
      body.duration_seconds = duration;
      // A job that is asked to run long shall not be ended by the standard timeout.
      body.timeout_seconds = Math.max(STANDARD_TIMEOUT_SECONDS, 2 * duration);
    }
    const told = find("submit-told");
    if (this.#submitting) return;
    this.#submitting = true;
    try {
      const job = await post("/v1/jobs", body);
      told.className = "told";
      text(told, `${job.name} is accepted.`);
      this.submitted();
    } catch (error) {
      told.className = "told wrong";
      text(told, `Not accepted: ${reason(error)}`);
    }
    this.#submitting = false;
  }
}

/** By what a person sees of a job: name, type, priority, state, place and reason. */
const matches = (job, wanted) =>
  [job.name, job.id, job.type, job.priority, job.state, job.reason, placed(job.placement)].some((part) =>
    part?.toLowerCase().includes(wanted),
  );

const began = (job) => job.started_at ?? job.submitted_at;

function paintJob(row, job) {
  const [head, middle, place, why] = row.children;
  const [what, , cancel] = middle.children;
  const final = job.state in ENDINGS;
  row.className = `job is-${job.state}`;
  text(head.firstElementChild, job.name);
  paintTime(head.lastElementChild, job, final);
  const known = job.type ? [job.type, plural(job.gpus, "GPU"), job.priority.toLowerCase()] : [];
  const stage = final ? ending(job.state) : job.state === "assigned" && "assigned";
  text(what, [stage, ...known].filter(Boolean).join(" · "));
  text(place, final ? "" : placed(job.placement));
  place.hidden = final || job.placement.length === 0;
  cancel.hidden = final;
  text(why, job.reason ?? "");
  why.hidden = !job.reason;
}

/** How long it waits or runs, counted on; for a finished job how long it ran. */
function paintTime(time, job, final) {
  if (!final) {
    time.dataset.since = job.started_at ?? job.submitted_at;
    return;
  }
  delete time.dataset.since;
  const ran = job.started_at && (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000;
  text(time, ran ? span(ran) : "–");
}
