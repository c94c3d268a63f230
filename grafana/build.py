"""Builds dashboards/*.json. Run `python -m grafana.build` after a change and commit both; a test compares them."""

from pathlib import Path

from grafana import detector, fleet, gpu, gpus, scheduler

FOLDER = Path(__file__).parent / "dashboards"
BOARDS = (fleet.BOARD, gpus.BOARD, gpu.BOARD, detector.BOARD, scheduler.BOARD)

if __name__ == "__main__":
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(board.encode())
