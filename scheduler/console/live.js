// Staying current: the event stream, and reads that are repeated, never pile up and are never too many.

const EVENTS = [
  ...["queued", "assigned", "running", "succeeded", "failed", "cancelled", "timed_out", "requeued"].map((s) => `job.${s}`),
  ...["registered", "removed", "healthy", "unreachable", "draining", "drained", "undrained", "held", "released", "probation", "reset"].map(
    (s) => `node.${s}`,
  ),
  "gpu.cordoned",
  "gpu.uncordoned",
  "gpu.probation",
  "gpu.cooling",
  "gpu.cooled",
  "canary.failed",
  "alert.received",
  "workload.changed",
];

const GAP_MS = 250;
const RETRY_MS = 1000;

/** Reads every `period` ms, and at once when asked; at most four times a second and half of the time. */
export class Reading {
  #timer = 0;
  #busy = false;
  #asked = false;
  #earliest = 0;

  constructor(read, period, failed) {
    this.read = read;
    this.period = period;
    this.failed = failed;
    this.paused = true;
  }

  ask() {
    if (this.paused) return;
    if (this.#busy) this.#asked = true;
    else this.#schedule(this.#earliest - performance.now());
  }

  start() {
    this.paused = false;
    this.ask();
  }

  stop() {
    this.paused = true;
    clearTimeout(this.#timer);
  }

  #schedule(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#run(), Math.max(0, wait));
  }

  async #run() {
    const began = performance.now();
    this.#busy = true;
    this.#asked = false;
    let next = this.period;
    try {
      await this.read(began);
    } catch (error) {
      next = RETRY_MS;
      this.failed(error);
    }
    this.#busy = false;
    const took = performance.now() - began;
    this.#earliest = began + Math.max(GAP_MS, 2 * took);
    if (!this.paused) this.#schedule(this.#asked ? this.#earliest - performance.now() : next);
  }
}

/** /v1/events from a sequence on. Reconnects by itself, where it left off; nothing is told twice. */
export class Stream {
  #source = null;
  #timer = 0;

  constructor(take, opened, lost) {
    Object.assign(this, { take, opened, lost, last: 0 });
  }

  start(after) {
    this.stop();
    this.last = after;
    this.#connect();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  get running() {
    return this.#source !== null;
  }

  get open() {
    return this.#source?.readyState === EventSource.OPEN;
  }

  #connect() {
    const source = new EventSource(`/v1/events?after=${this.last}`);
    this.#source = source;
    source.onopen = () => this.opened();
    source.onerror = () => {
      // A browser's own pause between tries is 3 s and more, and after an HTTP error it never tries again.
      source.close();
      this.lost();
      this.#timer = setTimeout(() => this.#connect(), RETRY_MS);
    };
    for (const type of EVENTS) source.addEventListener(type, (message) => this.#taken(type, message));
  }

  #taken(type, message) {
    const event = { type, ...JSON.parse(message.data) };
    if (event.sequence <= this.last) return;
    this.last = event.sequence;
    this.take(event);
  }
}
