import re
from pathlib import Path

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from starlette.routing import Route

from scheduler.api import ENDPOINTS, VERSION, Configuration, application, openapi
from scheduler.store import Store

from .processes import Scheduler, until

PROBLEM = "application/problem+json"


def test_a_job_is_accepted_with_its_location_and_a_readable_name(scheduler: Scheduler) -> None:
    answer = scheduler.http.post("/v1/jobs", json={"type": "matrix", "gpus": 1, "priority": "HIGH"})
    job = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["priority"], job["timeout_seconds"], job["retries"]) == ("queued", "HIGH", 300, 3)
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d+", job["name"])


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ({"gpus": 1}, "/type", "required"),
        ({"type": "sleeep", "gpus": 1}, "/type", "sleeep"),
        ({"type": "sleep", "gpus": 0}, "/gpus", "0"),
        ({"type": "sleep", "gpus": True}, "/gpus", "True"),
        ({"type": "sleep", "gpus": "1"}, "/gpus", "'1'"),
        ({"type": "sleep", "gpus": 1, "colour": "red"}, "/colour", "red"),
        ({"type": "sleep", "gpus": 1, "priority": "high"}, "/priority", "high"),
        ({"type": "sleep", "gpus": 1, "timeout_seconds": -1}, "/timeout_seconds", "-1"),
        ({"type": "sleep", "gpus": 1, "retries": 1.5}, "/retries", "1.5"),
        ({"type": "matrix", "gpus": 1, "parameters": {"size": 1}}, "/parameters/size", "1"),
        ({"type": "fault", "gpus": 1, "parameters": {"probability": 2}}, "/parameters/probability", "2"),
        ({"type": "sleep", "gpus": 1, "parameters": {"x/y": 1}}, "/parameters/x~1y", "1"),
    ],
)
def test_a_bad_job_is_refused_with_what_is_wrong(scheduler: Scheduler, body: object, pointer: str, said: str) -> None:
    answer = scheduler.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert said in error["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"type":"sleep","gpus":1,"duration_seconds":NaN}', b"\xff"])
def test_what_is_not_a_job_at_all_is_refused(scheduler: Scheduler, body: bytes) -> None:
    answer = scheduler.http.post("/v1/jobs", content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)


def test_gpus_must_spread_evenly(scheduler: Scheduler) -> None:
    answer = scheduler.http.post("/v1/jobs", json={"type": "sleep", "gpus": 3, "nodes": 2})
    assert answer.status_code == 422
    assert "3 GPUs do not spread evenly over 2 nodes" in answer.json()["detail"]


def test_a_body_over_a_mebibyte_is_refused(scheduler: Scheduler) -> None:
    body = {"type": "sleep", "gpus": 1, "name": "x" * (1 << 20)}
    assert scheduler.http.post("/v1/jobs", json=body).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs/job-none", 404),
        ("POST", "/v1/jobs/job-none/cancel", 404),
        ("GET", "/v1/jobs/job-none/decision", 404),
        ("GET", "/v1/nodes/none", 404),
        ("DELETE", "/v1/nodes/none", 404),
        ("POST", "/v1/nodes/none/undrain", 404),
        ("POST", "/v1/nodes/none/gpus/0/uncordon", 404),
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/jobs", 405),
        ("GET", "/v1/jobs?limit=0", 422),
        ("GET", "/v1/jobs?state=lost", 422),
        ("GET", "/v1/jobs?page=2", 422),
        ("GET", "/v1/jobs?cursor=mine", 422),
        ("GET", "/v1/events?after=-1", 422),
        ("POST", "/v1/attempts/1/report", 422),
    ],
)
def test_errors_are_problem_documents(scheduler: Scheduler, method: str, path: str, status: int) -> None:
    answer = scheduler.http.request(method, path)
    problem = answer.json()
    assert answer.status_code == problem["status"] == status
    assert answer.headers["content-type"] == PROBLEM
    assert problem["instance"] == path.partition("?")[0]


def test_without_the_token_nothing_of_v1_answers(scheduler: Scheduler) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {scheduler.token}"}):
        answer = httpx.get(f"{scheduler.url}/v1/jobs", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.headers["content-type"] == PROBLEM
    assert httpx.get(f"{scheduler.url}/livez").status_code == 200
    assert httpx.get(f"{scheduler.url}/metrics").status_code == 200


def test_the_login_link_gives_a_cookie_that_cannot_be_used_from_elsewhere(scheduler: Scheduler) -> None:
    with httpx.Client(base_url=scheduler.url) as browser:
        assert "/login?token=" in browser.get("/").text
        assert browser.get("/login", params={"token": "wrong"}).status_code == 401
        answer = browser.get("/login", params={"token": scheduler.token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().split("; "))
        assert browser.get("/v1/fleet").status_code == 200
        job = {"type": "sleep", "gpus": 1}
        assert browser.post("/v1/jobs", json=job).status_code == 401
        assert browser.post("/v1/jobs", json=job, headers={"X-Stethos-Console": "1"}).status_code == 201


def test_the_console_serves_its_own_files_only(scheduler: Scheduler) -> None:
    assert scheduler.http.get("/console/..%2fauth.py").status_code == 404
    assert scheduler.http.get("/console/none.js").status_code == 404


def test_an_idempotency_key_gives_the_same_job_again(scheduler: Scheduler) -> None:
    body = {"type": "sleep", "gpus": 1, "name": "once"}
    headers = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
    first, again = (scheduler.http.post("/v1/jobs", json=body, headers=headers) for _ in range(2))
    assert first.status_code == again.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    other = scheduler.http.post("/v1/jobs", json=body | {"gpus": 2}, headers=headers)
    assert other.status_code == 422
    assert scheduler.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "a b"}).status_code == 400


def test_the_list_pages_through_every_job_once(scheduler: Scheduler) -> None:
    submitted = [scheduler.submit(gpus=7)["id"] for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    while len(seen) < 7:
        page = scheduler.get(f"/v1/jobs?state=queued&limit=3{cursor}")
        seen += [job["id"] for job in page["jobs"]]
        cursor = f"&cursor={page['cursor']}"
    assert seen[:7] == submitted[::-1]


def test_why_a_job_waits_is_told(scheduler: Scheduler) -> None:
    scheduler.node("wide", gpus=4)
    job = scheduler.submit(gpus=8)
    found = scheduler.get(f"/v1/jobs/{job['id']}/decision")
    assert found["placed"] is False
    assert [(look["node"], look["fits"], look["free"]) for look in found["candidates"]] == [("wide", False, 4)]
    reason = "needs 8 GPUs on one node; the largest node has 4"
    until(lambda: scheduler.job(job["id"])["reason"] == reason)


def test_why_a_job_went_where_it_went_is_kept(scheduler: Scheduler) -> None:
    scheduler.node("large", gpus=8)
    scheduler.node("small", gpus=2)
    job = scheduler.becomes(scheduler.submit(gpus=2), "assigned")
    found = scheduler.get(f"/v1/jobs/{job['id']}/decision")
    assert found["placed"] is True
    assert found["placement"] == [{"node": "small", "gpus": [0, 1]}]
    assert [(look["node"], look["chosen"]) for look in found["candidates"]] == [("small", True), ("large", False)]


def test_the_fleet_says_what_each_gpu_does(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=2, model="H100", rack="rack-1")
    job = scheduler.becomes(scheduler.submit(), "assigned")
    scheduler.post("/v1/nodes/n/gpus/1/cordon", {"reason": "fan"})
    fleet = scheduler.get("/v1/fleet")
    (node,) = fleet["nodes"]
    assert (node["rack"], node["state"], node["placeable"]) == ("rack-1", "healthy", True)
    assert [gpu["state"] for gpu in node["gpus"]] == ["busy", "cordoned"]
    assert node["gpus"][0]["job"]["id"] == job["id"]
    assert node["gpus"][1]["cordon"] | {"since": ""} == {"reason": "fan", "owner": "person", "since": ""}
    assert fleet["counts"]["gpus"] == {"free": 0, "busy": 1, "cordoned": 1, "unavailable": 0}
    assert fleet["health"] == {"state": "off", "read_seconds_ago": None, "scores": 0}


def test_the_fleet_comes_without_its_gpus_where_that_is_asked(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=4)
    scheduler.post("/v1/nodes/n/gpus/1/cordon", {"reason": "fan"})
    scheduler.becomes(scheduler.submit(), "assigned")
    whole, short, bare = (scheduler.get(f"/v1/fleet?detail={detail}") for detail in ("gpus", "nodes", "none"))
    assert len(whole["nodes"][0]["gpus"]) == 4
    assert short["nodes"][0]["gpus"] == {"busy": 1, "cordoned": 1, "free": 2}
    assert bare["nodes"] == []
    for fleet in (whole, short, bare):
        assert fleet["utilization"] == 0.25
        assert fleet["anomalies"] == {"good": 0, "doubtful": 0, "bad": 0, "unknown": 4}
        assert fleet["counts"]["gpus"]["busy"] == 1
    assert scheduler.http.get("/v1/fleet?detail=all").status_code == 422


def test_pages_cannot_be_framed(scheduler: Scheduler) -> None:
    for path in ("/", "/docs", "/console/main.js"):
        headers = scheduler.http.get(path).headers
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_the_metrics_name_the_gpus_of_running_jobs(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=2)
    job = scheduler.submit(gpus=2)
    start = scheduler.offered("n")
    scheduler.beat({"n": [start["fence"]]})
    lines = scheduler.http.get("/metrics").text.splitlines()
    for gpu in "01":
        assert f'stethos_job_gpu_info{{gpu="{gpu}",job_id="{job["id"]}",node="n"}} 1.0' in lines
    assert 'stethos_scheduler_gpus{state="busy"} 2.0' in lines
    assert 'stethos_scheduler_nodes{state="healthy"} 1.0' in lines


def test_the_document_describes_exactly_the_routes(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    app = application(Configuration(store, "token", tmp_path / "token"))
    store.close()
    document = openapi.document(ENDPOINTS, VERSION)
    described = {(method.upper(), path) for path, each in document["paths"].items() for method in each}  # type: ignore[attr-defined]
    routed = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == routed


def test_answers_are_what_the_document_says(scheduler: Scheduler) -> None:
    document = scheduler.get("/openapi.json")
    assert document["openapi"] == "3.1.0"
    scheduler.node("n", gpus=2)
    job = scheduler.submit()
    for path, described in {
        "/v1/fleet": "/v1/fleet",
        "/v1/nodes": "/v1/nodes",
        "/v1/nodes/n": "/v1/nodes/{node}",
        "/v1/jobs": "/v1/jobs",
        f"/v1/jobs/{job['id']}": "/v1/jobs/{job}",
        f"/v1/jobs/{job['id']}/decision": "/v1/jobs/{job}/decision",
        "/v1/alerts": "/v1/alerts",
        "/v1/workload": "/v1/workload",
    }.items():
        content = document["paths"][described]["get"]["responses"]["200"]["content"]["application/json"]
        schema = content["schema"] | {"components": document["components"]}
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(scheduler.get(path), schema, jsonschema.Draft202012Validator)


def test_the_documentation_is_one_page_that_needs_nothing_else(scheduler: Scheduler) -> None:
    page = scheduler.http.get("/docs").text
    assert "POST /v1/jobs" in page
    assert not re.search(r"""(src|href)=["']?https?:""", page)
