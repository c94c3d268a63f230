"""Nodes that come and go, as a real Prometheus sees them."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from exporters.synthetic.fleet import build
from exporters.synthetic.source import SyntheticSource
from tests.exporters.conftest import Serving, synthetic_app, until
from tests.prometheus.servers import program, running
from tests.prometheus.test_servers import free_port

CONFIGURATION = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: nodes
    http_sd_configs: [{{url: "{url}", refresh_interval: 1s}}]
"""


def temperatures(url: str) -> Callable[[], dict[str, int]]:
    """Node → GPUs that Prometheus knows now."""

    def ask() -> dict[str, int]:
        query = {"query": "count by (node) (DCGM_FI_DEV_GPU_TEMP)"}
        try:
            found = httpx.get(f"{url}/api/v1/query", params=query).json()["data"]["result"]
        except (httpx.TransportError, ValueError, KeyError):  # not there yet
            return {}
        return {each["metric"]["node"]: int(each["value"][1]) for each in found}

    return ask


@pytest.mark.slow
def test_nodes_appear_in_prometheus_and_vanish_without_a_restart(
    serving: Serving, bearer: dict[str, str], tmp_path: Path
) -> None:
    client = serving(synthetic_app(SyntheticSource(build(2, 8, 32, ["H100"], 7), interval_seconds=0.2)))
    (tmp_path / "prometheus.yml").write_text(CONFIGURATION.format(url=client.base_url.join("/discovery")))
    url = f"http://127.0.0.1:{free_port()}"
    flags = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with running(program("prometheus"), *flags, f"--web.listen-address={url[7:]}", log=tmp_path / "log"):
        seen = temperatures(url)
        assert until(lambda: seen() == {"node-01": 8, "node-02": 8}, 60), (tmp_path / "log").read_text()
        added = client.post("/v1/nodes", json={"node": "node-09", "gpus": 4, "model": "A100"}, headers=bearer)
        assert added.status_code == 201
        assert until(lambda: seen() == {"node-01": 8, "node-02": 8, "node-09": 4}, 60)
        assert client.delete("/v1/nodes/node-01", headers=bearer).status_code == 204
        assert until(lambda: seen() == {"node-02": 8, "node-09": 4}, 60)
