// Wires the parts: reads and events change the state, and the state is painted once per frame.

import { Refused, get, nodePath } from "./api.js";
import { className, clock, find, plural, setClock, span, text } from "./dom.js";
import { Automation } from "./automation.js";
import { Charts } from "./charts.js";
import { Decision } from "./decision.js";
import { Faults, removal } from "./faults.js";
import { Fleet } from "./fleet.js";
import { History } from "./history.js";
import { Inspector } from "./inspector.js";
import { Jobs } from "./jobs.js";
import { Reading, Stream } from "./live.js";
import { EventLog, paintAlerts } from "./log.js";
import { State, isBad, isDoubtful } from "./state.js";
import { WorkloadControl } from "./workload.js";

const HISTORY = 60;
const FARTHEST_BACK = 500;
const STALE_MS = 10_000;
// Above so many nodes only those that something happened to are read between two reads of them all.
const SMALL = 64;
const MOST_SINGLE = 12;
const WHOLE_MS = 10_000;

const state = new State();
const fleet = new Fleet(state, select);
const inspector = new Inspector(state, select, changed);
const decision = new Decision();
const jobs = new Jobs(state, select, () => (readFleet.ask(), readJobs.ask()), (job) => decision.show(job));
const history = new History();
const automation = new Automation(select, changed);
const faults = new Faults(state);
const charts = new Charts();
const workload = new WorkloadControl(state);
const log = new EventLog();

const stream = new Stream(take, () => connection("live"), lost);
const readFleet = new Reading(fetchFleet, 2500, (error) => ((wholeAt = -Infinity), failed(error)));
const readJobs = new Reading(fetchJobs, 5000, failed);
const readAlerts = new Reading(fetchAlerts, 30_000, failed);
const readAutomation = new Reading(() => automation.read(), 10_000, failed);
const readHistory = new Reading(() => history.read(fleet.selected ?? undefined), 15_000, () => {});
const readFaults = new Reading(() => faults.read(), 10_000, () => {});
const readPresets = new Reading(() => workload.read(), 300_000, () => {});

let newestRead = 0;
let readAt = 0;
let wholeAt = -Infinity;
let longList = false;

async function fetchFleet() {
  const [answer, nodes, some] = await readNodes();
  setClock(answer.time);
  if (answer.sequence < newestRead) startOver();
  state.takeFleet(answer, nodes, some);
  charts.take(answer, worstScore());
  if (answer.synthetic && !faults.available && !readAt) readFaults.ask();
  readAt = performance.now();
  newestRead = answer.sequence;
  if (stream.open) connection("live");
  if (!stream.running) {
    // A little history at first; after a pause all that was missed, unless that is very much.
    const after = stream.last ? Math.max(stream.last, answer.sequence - FARTHEST_BACK) : answer.sequence - HISTORY;
    stream.start(Math.max(0, Math.min(after, answer.sequence)));
  }
  paint("fleet", "jobs");
}

/** All nodes, or in a large fleet those that changed since, and the counts of all. */
async function readNodes() {
  const names = [...state.touched];
  state.touched.clear();
  const whole = performance.now() - wholeAt > WHOLE_MS || state.nodes.size <= SMALL || names.length > MOST_SINGLE;
  if (whole) {
    const answer = await get("/v1/fleet");
    wholeAt = performance.now();
    return [answer, answer.nodes, null];
  }
  const gone = (error) => (error instanceof Refused && error.status === 404 ? null : Promise.reject(error));
  const nodes = Promise.all(names.map((name) => get(nodePath(name)).catch(gone)));
  // The counts first: what the nodes tell is then not older than they are.
  const answer = await get("/v1/fleet?detail=none");
  return [answer, (await nodes).filter(Boolean), names];
}

function worstScore() {
  let worst = null;
  for (const node of state.nodes.values()) for (const { score } of node.gpus) if (score !== null && !(score <= worst)) worst = score;
  return worst;
}

/** The scheduler has another store than before: what it told does not count any more. */
function startOver() {
  stream.stop();
  stream.last = 0;
  state.forget();
  readJobs.ask();
}

async function fetchJobs(began) {
  const wanted = ["/v1/jobs?limit=100"];
  if (longList) wanted.push("/v1/jobs?state=queued&limit=50", "/v1/jobs?state=running&limit=100");
  const answers = await Promise.all(wanted.map(get));
  if (!longList && answers[0].cursor) {
    // More than one page: those that wait or run may be on a later one.
    longList = true;
    return fetchJobs(began);
  }
  state.takeJobs(answers.map((answer) => answer.jobs), began);
  paint("jobs");
}

async function fetchAlerts() {
  paintAlerts((await get("/v1/alerts?limit=30")).alerts);
}

function take(event) {
  log.take(event);
  const touched = state.touchedBy(event);
  // The fleet may have been read since; the other readings have not.
  if (event.sequence > newestRead) {
    for (const name of touched) state.touched.add(name);
    state.take(event);
    readFleet.ask();
  }
  if (event.type.startsWith("job.")) readJobs.ask();
  else readAutomation.ask();
  if (event.type === "alert.received") readAlerts.ask();
  if (fleet.selected && touched.includes(fleet.selected.node)) readHistory.ask();
  paint("log", event.type.startsWith("job.") ? "jobs" : "fleet");
}

const PAINTERS = {
  fleet: () => (paintFigures(), fleet.paint(), inspector.paint(), workload.paint(), charts.paint()),
  jobs: () => jobs.paint(),
  log: () => log.paint(),
};
const due = new Set();

/** Once per frame, however much happens, and only the parts that something happened to. */
function paint(...parts) {
  if (!due.size) requestAnimationFrame(paintDue);
  for (const part of parts) due.add(part);
}

function paintDue() {
  const parts = [...due];
  due.clear();
  if (!state.fleet) return;
  for (const part of parts) PAINTERS[part]();
}

function select(selection, keyboard = false) {
  const closed = !selection && fleet.selected;
  fleet.selected = inspector.selected = selection;
  const place = selection && [selection.node, selection.gpu].filter((part) => part !== undefined).join(" GPU ");
  text(find("spoken"), place ? `${place} selected` : "");
  if (closed) fleet.focus(closed);
  if (selection) faults.aim(selection);
  readHistory.ask();
  paint("fleet");
  if (keyboard) requestAnimationFrame(() => inspector.focus());
}

/** An action answered with the node as it is now. */
function changed(node) {
  state.nodes.set(node.node, node);
  paint("fleet");
  readFleet.ask();
}

function paintFigures() {
  const { counts, queue, health } = state.fleet;
  const gpus = [...state.nodes.values()].flatMap((node) => node.gpus);
  const [bad, doubtful] = [gpus.filter(isBad).length, gpus.filter(isDoubtful).length];
  const amiss = Object.entries(counts.nodes).filter(([name, count]) => count && name !== "healthy");
  text(find("nodes-count"), state.nodes.size);
  text(find("nodes-note"), amiss.length ? amiss.map(([name, count]) => `${count} ${name}`).join(", ") : "all healthy");
  text(find("gpus-count"), gpus.length);
  for (const [name, count] of Object.entries(counts.gpus)) {
    text(find(`gpus-${name}`), count);
    find(`bar-${name}`).style.flexGrow = count;
  }
  text(find("bad-count"), bad);
  text(find("bad-note"), doubtful ? `${doubtful} doubtful` : "none doubtful");
  className(find("bad-figure"), bad ? "alarm" : "");
  text(find("queue-count"), queue.queued);
  text(find("queue-note"), queue.queued ? `oldest ${span(queue.oldest_seconds)}` : "nothing waits");
  text(find("running-count"), queue.running + queue.assigned);
  text(find("running-note"), `on ${plural(counts.gpus.busy, "GPU")}`);
  text(find("finished-count"), queue.finished_per_minute);
  text(find("finished-note"), `${queue.succeeded} done, ${queue.failed + queue.timed_out} failed`);
  paintHealth(health);
}

function paintHealth({ state: source, read_seconds_ago: age, scores }) {
  const words = {
    off: "Health source off",
    unreachable: "Health source unreachable",
    fresh: `${plural(scores, "score")}, ${span(age ?? 0)} old`,
  };
  text(find("health"), words[source]);
  className(find("health"), `pill ${source}`);
}

const WORDS = { connecting: "Connecting", live: "Live", stale: "Stale", lost: "Connection lost", locked: "Logged out" };

function connection(how) {
  className(find("connection"), `pill ${how}`);
  text(find("connection"), WORDS[how]);
  const banner = find("banner");
  banner.hidden = how === "live" || how === "connecting";
  const time = state.fleet ? ` What you see is from ${clock(state.fleet.time)}.` : "";
  const said = {
    lost: `The scheduler cannot be reached; trying again every second.${time}`,
    stale: `The scheduler has not answered for a while.${time}`,
    locked: "This login is no longer valid. Open the login link that the scheduler printed when it started.",
  };
  text(banner, said[how] ?? "");
  document.body.dataset.connection = how;
}

function lost() {
  connection("lost");
  readFleet.ask();
}

function failed(error) {
  if (error instanceof Refused && error.status === 401) connection("locked");
  else connection(error instanceof Refused ? "stale" : "lost");
}

setInterval(() => {
  if (!document.hidden && readAt && performance.now() - readAt > STALE_MS && document.body.dataset.connection === "live") {
    connection("stale");
  }
}, 1000);

// A page that nobody sees asks for nothing.
function visibility() {
  const readings = [readFleet, readJobs, readAlerts, readAutomation, readHistory, readFaults, readPresets];
  if (document.hidden) stream.stop();
  for (const reading of readings) document.hidden ? reading.stop() : reading.start();
}

automation.ask = () => (readAutomation.ask(), readFleet.ask());
faults.ask = () => readFaults.ask();
removal(faults, () => fleet.selected && state.nodes.get(fleet.selected.node), () => (select(null), readFleet.ask()));
document.addEventListener("visibilitychange", visibility);
document.addEventListener("keydown", ({ key }) => {
  // In the dialog Escape closes the dialog, and no more.
  if (key !== "Escape" || find("decision").open) return;
  find("tip").hidden = true;
  if (fleet.selected) select(null);
});
connection("connecting");
visibility();
