"""How the console carries a large fleet: `python -m tests.scheduler.measure_console [--nodes N] [--jobs J]`.

A real scheduler with N nodes of 8 GPUs, a real Chromium, and jobs as fast as the scheduler takes them: an hour at the
generator's highest rate has 3,000. Only the scores are made up here: a walk of its own for each GPU, new every 5 s.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from playwright.sync_api import Browser, CDPSession, Page

from .browser import console, launched
from .processes import Scheduler, until

GPUS = 8
TRACED_SECONDS = 30
PATIENCE_SECONDS = 120.0
#: The browser's names of the work of scripts; they may lie within each other.
SCRIPTING = {"EvaluateScript", "EventDispatch", "FireAnimationFrame", "FunctionCall", "RunMicrotasks", "TimerFire"}
#: Notes when all GPUs are there and the frame that has them is on the screen.
WHOLE = """new MutationObserver((_, watching) => {
    if (document.querySelectorAll("#fleet .gpu").length < %d) return;
    watching.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => (window.wholeAt = performance.now())));
}).observe(document, { childList: true, subtree: true })"""


class Scores(BaseHTTPRequestHandler):
    """Answers each query as Prometheus would, with scores that walk."""

    nodes = 0
    walk: dict[tuple[int, int], float] = {}  # noqa: RUF012

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        now, rows = time.time(), []
        if "timestamp" in asked:
            for place in ((node, gpu) for node in range(self.nodes) for gpu in range(GPUS)):
                score = self.walk[place] = min(1.1, max(0.0, self.walk.get(place, 0.3) + random.gauss(0, 0.05)))
                labels = f'"node": "node-{place[0]:04}", "gpu": "{place[1]}"'
                for what, value in (("score", score), ("timestamp", now)):
                    rows.append(f'{{"metric": {{{labels}, "what": "{what}"}}, "value": [{now}, "{value}"]}}')
        body = f'{{"status": "success", "data": {{"result": [{",".join(rows)}]}}}}'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(BrokenPipeError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def scores(nodes: int) -> Iterator[str]:
    Scores.nodes = nodes
    with ThreadingHTTPServer(("127.0.0.1", 0), Scores) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def fleet(nodes: int) -> Iterator[Scheduler]:
    with scores(nodes) as url, tempfile.TemporaryDirectory() as home:
        server = Scheduler(Path(home), "--node-timeout", "36000", "--prometheus", url)
        server.http.timeout = 60

        def register(index: int) -> None:
            server.post("/v1/nodes", {"node": f"node-{index:04}", "gpus": GPUS, "rack": f"rack-{index // 8}"}, 201)

        try:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(register, range(nodes)))
            beat(server, nodes)
            yield server
        finally:
            server.close()


def beat(server: Scheduler, nodes: int) -> None:
    server.beat({f"node-{index:04}": [] for index in range(nodes)})


def work(server: Scheduler, nodes: int, jobs: int) -> None:
    """Jobs that are placed and then cancelled, and now and then a node that is drained and comes back."""
    for _ in range(0, jobs, 20):
        ids = [server.submit(gpus=random.choice((1, 1, 2, 4)))["id"] for _ in range(20)]
        node = f"/v1/nodes/node-{random.randrange(nodes):04}"
        server.post(f"{node}/drain", {"reason": "measured"})
        for job in ids:
            server.post(f"/v1/jobs/{job}/cancel")
        server.post(f"{node}/undrain")
        beat(server, nodes)


def paints(browser: Browser, server: Scheduler, nodes: int) -> tuple[float, float]:
    """Milliseconds from the navigation to the first content and to the whole fleet on the screen."""
    with console(browser, server, patience_seconds=PATIENCE_SECONDS) as page:
        page.add_init_script(WHOLE % (nodes * GPUS))
        page.reload()
        whole = until(lambda: page.evaluate("window.wholeAt"), PATIENCE_SECONDS)
        first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        return float(first), float(whole)


def scripting(browser: Browser, page: Page) -> list[float]:
    """Processor milliseconds of each stretch of scripting on the page, over some seconds of updates."""
    browser.start_tracing(page=page, categories=["devtools.timeline", "v8.execute", "toplevel"])
    page.wait_for_timeout(TRACED_SECONDS * 1000)
    events: list[dict[str, Any]] = json.loads(browser.stop_tracing())["traceEvents"]
    threads = {(event["pid"], event["tid"]) for event in events if event["name"] == "FireAnimationFrame"}
    ours = (event for event in events if event["name"] in SCRIPTING and (event["pid"], event["tid"]) in threads)
    outermost, end = [], 0.0
    for event in sorted((event for event in ours if "tdur" in event), key=lambda event: (event["ts"], -event["dur"])):
        if event["ts"] >= end:
            outermost.append(event["tdur"] / 1000)
            end = event["ts"] + event["dur"]
    return sorted(outermost)


def heap(session: CDPSession) -> tuple[float, int, int]:
    """MB of JavaScript, nodes of the page and listeners that are still held after a collection."""
    session.send("HeapProfiler.collectGarbage")
    found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return found["JSHeapUsedSize"] / 1e6, int(found["Nodes"]), int(found["JSEventListeners"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=3000)
    asked = parser.parse_args()
    say = sys.stdout.write
    with fleet(asked.nodes) as server, launched() as browser:
        first, whole = min(paints(browser, server, asked.nodes) for _ in range(3))
        say(f"{asked.nodes * GPUS} GPUs: first paint {first:.0f} ms, the whole fleet {whole:.0f} ms (best of 3)\n")
        with console(browser, server, patience_seconds=PATIENCE_SECONDS) as page:
            working = Thread(target=work, args=(server, asked.nodes, asked.jobs), daemon=True)
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable")
            page.wait_for_timeout(5000)
            working.start()
            spent = scripting(browser, page)
            say(f"scripting, in processor time, in {TRACED_SECONDS} s: {len(spent)} stretches, 99 % of them under ")
            say(f"{spent[int(len(spent) * 0.99)]:.0f} ms, the longest {spent[-1]:.0f} ms, ")
            say(f"together {sum(spent) / TRACED_SECONDS / 10:.0f} % of a core\n")
            while True:
                mb, nodes, listeners = heap(session)
                sequence = server.get("/v1/fleet?detail=none")["sequence"]
                say(f"after {sequence} events: {mb:.1f} MB of heap, {nodes} nodes, {listeners} listeners\n")
                sys.stdout.flush()
                if not working.is_alive():
                    break
                page.wait_for_timeout(15_000)


if __name__ == "__main__":
    main()
