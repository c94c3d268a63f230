"""The XID catalogue: complete, and honest about where its sources disagree."""

import pytest

from exporters import xid


def test_every_code_of_the_catalogue_is_there_once() -> None:
    assert list(xid.catalogue()) == list(range(1, 173))


@pytest.mark.parametrize(
    ("code", "nvidia", "gpud", "utkuozdemir", "azure"),
    [
        (63, "IGNORE", "fatal: reboot", "never alert", "fail"),
        (94, "RESTART_APP", "fatal: reboot or ignore", "warning", None),
        (69, "RESTART_APP", "fatal: reboot", None, "fail"),
        (92, "IGNORE", "warning: ignore", "never alert", "fail"),
        (38, "IGNORE", "fatal", None, None),
        (44, "IGNORE", "fatal", None, None),
        (144, "NVLink5 workflow (decode)", "warning: reboot", None, None),
        (150, "NVLink5 workflow (decode)", "warning: reboot", None, None),
    ],
)
def test_where_the_sources_disagree_each_keeps_its_word(
    code: int, nvidia: str, gpud: str, utkuozdemir: str | None, azure: str | None
) -> None:
    opinions = xid.look_up(code).opinions
    assert [opinions.get(each) for each in ("nvidia", "gpud", "utkuozdemir", "azure")] == [
        nvidia,
        gpud,
        utkuozdemir,
        azure,
    ]


@pytest.mark.parametrize(
    ("code", "category", "schedule"),
    [
        (13, "application", "yes"),
        (48, "memory", "no"),
        (63, "memory", "drain"),
        (74, "link", "no_multi_gpu"),
        (79, "fatal", "no"),
        (92, "early_warning", "yes"),
        (94, "memory", "watch"),
        (154, "summary", "follow_action"),
        (52, "unused", "watch"),
    ],
)
def test_our_verdict(code: int, category: str, schedule: str) -> None:
    known = xid.look_up(code)
    assert (known.category, known.schedule) == (category, schedule)


def test_no_code_means_overheating() -> None:
    assert not [each for each in xid.catalogue().values() if "thermal" in (each.category + each.name).lower()]


def test_an_unknown_code_is_a_warning_and_keeps_its_number() -> None:
    unknown = xid.look_up(4711)
    assert (unknown.code, unknown.schedule, unknown.name) == (4711, "watch", "Unknown XID")


def test_what_is_watched_stops_a_gpu_or_its_job() -> None:
    assert {xid.look_up(code).schedule for code in xid.WATCHED} <= {"no", "no_multi_gpu", "watch"}
    assert all(xid.look_up(code).opinions.get("utkuozdemir") in ("critical", "warning") for code in xid.WATCHED)


def test_verdicts_come_from_a_fixed_vocabulary() -> None:
    assert {each.schedule for each in xid.catalogue().values()} <= {
        "yes",
        "watch",
        "drain",
        "no",
        "no_multi_gpu",
        "no_vgpu",
        "follow_action",
    }
