// What the page knows. Events change it at once; the reads that follow confirm it.

const FINAL = new Set(["succeeded", "failed", "cancelled", "timed_out"]);
const FINISHED_KEPT = 40;
const EVENTS_KEPT = 200;

const isFinal = (job) => FINAL.has(job.state);
export const isBad = (gpu) => gpu.score !== null && gpu.score >= 1;
export const isDoubtful = (gpu) => gpu.score !== null && gpu.score >= 0.7 && gpu.score < 1;
const isHeld = (node) => node.state === "healthy" && !node.placeable;
/** For people: the API says `healthy` of a node that an alert keeps work off, too. */
export const nodeState = (node) => (isHeld(node) ? "held" : node.state);

export class State {
  fleet = null;
  nodes = new Map();
  jobs = new Map();
  events = [];
  /** Nodes that something happened to since they were read. */
  touched = new Set();

  /** `nodes`: all of them, or only those of `some`. It may be older than what events have told since: they are told again. */
  takeFleet(fleet, nodes, some = null) {
    this.fleet = fleet;
    if (!some) this.nodes = new Map(nodes.map((node) => [node.node, node]));
    else for (const node of nodes) this.nodes.set(node.node, node);
    for (const event of this.events) if (event.sequence > fleet.sequence) this.#applyToFleet(event);
  }

  /** `lists` of jobs, asked for at `began`: a job that an event changed since is newer here than there. */
  takeJobs(lists, began) {
    const read = new Set();
    for (const job of lists.flat()) {
      read.add(job.id);
      const known = this.jobs.get(job.id);
      if (!known || (known.touched ?? 0) < began) this.jobs.set(job.id, job);
    }
    for (const job of this.jobs.values()) {
      if (!isFinal(job) && !read.has(job.id) && (job.touched ?? 0) < began) this.jobs.delete(job.id);
    }
    this.#forgetOld();
  }

  forget() {
    this.touched.clear();
    this.jobs.clear();
    this.events.length = 0;
  }

  /** The nodes that an event is about, as far as it tells. */
  touchedBy({ type, subject, node, placement }) {
    if (type.startsWith("node.")) return [subject];
    const shares = type.startsWith("job.") ? [...(placement ?? []), ...(this.jobs.get(subject)?.placement ?? [])] : [];
    return [node, ...shares.map((share) => share.node)].filter(Boolean);
  }

  take(event) {
    this.events.push(event);
    if (this.events.length > EVENTS_KEPT) this.events.shift();
    if (event.type.startsWith("job.")) this.#applyToJob(event);
    else this.#applyToFleet(event);
  }

  gpu(node, index) {
    return this.nodes.get(node)?.gpus.find((gpu) => gpu.gpu === index);
  }

  inState(...states) {
    return [...this.jobs.values()].filter((job) => states.includes(job.state));
  }

  get finished() {
    return [...this.jobs.values()].filter(isFinal).sort((a, b) => (a.finished_at < b.finished_at ? 1 : -1));
  }

  #applyToJob(event) {
    const { subject: id, name, state, reason = null, time } = event;
    const known = this.jobs.get(id) ?? { id, submitted_at: time, placement: [], started_at: null };
    const job = { ...known, name, state, reason, touched: performance.now() };
    if (event.placement) job.placement = event.placement;
    if (state === "queued") Object.assign(job, { placement: [], started_at: null });
    if (state === "running") job.started_at = time;
    if (isFinal(job)) job.finished_at = time;
    this.jobs.set(id, job);
    this.#forgetOld();
  }

  #applyToFleet({ type, subject, time, reason = null, owner, node: name, gpu: index, ...event }) {
    if (type === "workload.changed" && this.fleet) this.fleet.workload.jobs_per_minute = event.jobs_per_minute;
    if (type === "node.removed") this.nodes.delete(subject);
    const known = this.nodes.get(type.startsWith("gpu.") ? name : subject);
    if (!known) return;
    // A node that changes is another object, so that what shows it can tell.
    const node = structuredClone(known);
    this.nodes.set(node.node, node);
    const gpu = node.gpus.find((one) => one.gpu === index);
    switch (type) {
      case "node.unreachable":
        return void Object.assign(node, { state: "unreachable", placeable: false, reason });
      case "node.draining":
        node.drain = { reason, owner, since: time };
        return void Object.assign(node, { state: "draining", placeable: false, reason });
      case "node.drained":
        return void Object.assign(node, { state: "drained", placeable: false });
      case "node.undrained":
        if (node.state !== "unreachable") Object.assign(node, { state: "healthy", placeable: true });
        return void Object.assign(node, { drain: null, reason: null });
      case "node.held":
        return void Object.assign(node, { placeable: false, reason });
      case "gpu.cordoned":
      case "gpu.probation":
        if (gpu) gpu.cordon = { reason, owner, since: time };
        return;
      case "gpu.uncordoned":
        if (gpu) gpu.cordon = null;
        return;
    }
  }

  #forgetOld() {
    for (const job of this.finished.slice(FINISHED_KEPT)) this.jobs.delete(job.id);
  }
}
