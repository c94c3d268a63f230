"""Coloured lines on a terminal, JSON elsewhere; STETHOS_LOG=terminal|json decides otherwise."""

import logging
import os
import sys

import structlog


def configure() -> None:
    wanted = os.environ.get("STETHOS_LOG") or ("terminal" if sys.stderr.isatty() else "json")
    if wanted not in ("terminal", "json"):
        raise SystemExit(f"STETHOS_LOG is {wanted!r}; it can be terminal or json")
    renderer = structlog.dev.ConsoleRenderer() if wanted == "terminal" else structlog.processors.JSONRenderer()
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
