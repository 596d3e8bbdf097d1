"""The runner: a hang, a crash and a refusal are findings, and none of them holds anybody up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest

from healthchecks import runner
from healthchecks.api import CannotLookError, Check, Level, Settings
from healthchecks.findings import Fault, Finding, Severity


def fine(settings: Settings) -> dict[str, Any]:
    return {"root": settings.root}


def agree(facts: dict[str, Any], settings: Settings) -> Sequence[Finding]:
    del settings
    return [Finding("fine", "host", Severity.OK, Fault.HARDWARE, facts["root"])]


def hang(settings: Settings) -> dict[str, Any]:
    signal.pause()
    return fine(settings)


def refuse(settings: Settings) -> dict[str, Any]:
    raise CannotLookError(f"no library under {settings.root}")


def forbid(settings: Settings) -> dict[str, Any]:
    raise PermissionError(13, "Permission denied", settings.root)


def crash(settings: Settings) -> dict[str, Any]:
    raise ZeroDivisionError(settings.root)


def die(settings: Settings) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return fine(settings)


def chatter(settings: Settings) -> dict[str, Any]:
    """Talk on both outputs, as libraries do, before and after their work."""
    os.write(2, b"[W1126 socket.cpp:767] the client socket's name cannot be looked up\n" * 9_000)
    os.write(1, b"[Gloo] Rank 0 is connected\n")
    return fine(settings)


def check(name: str, probe: Any, limit: float = 20.0) -> Check:
    return Check(name, Level.PASSIVE, limit, probe, agree)


def only(checks: list[Check], **more: Any) -> Finding:
    (finding,) = runner.run(checks, Settings(), **more).findings
    return finding


def test_a_check_that_passes_is_stamped_with_boot_time_and_cost() -> None:
    before = time.time()
    finding = only([check("fine", fine)], boot_id="b-1")
    assert (finding.severity, finding.boot_id, finding.evidence) == (Severity.OK, "b-1", "/")
    assert before - 1 <= finding.observed_at <= time.time() + 1
    assert finding.cost >= 0


def test_a_hang_is_a_finding_and_does_not_hold_up_the_others() -> None:
    began = time.monotonic()
    ran = runner.run([check("stuck", hang, limit=0.1), check("fine", fine)], Settings())
    assert time.monotonic() - began < 10
    stuck, ok = ran.findings
    assert (stuck.severity, stuck.evidence) == (Severity.UNKNOWN, "timed out after 0.1 s")
    assert ok.severity is Severity.OK
    assert ran.coverage.passed == ("fine",)
    assert ran.coverage.skipped == {"stuck": "timed out after 0.1 s"}
    assert ran.coverage.complete


def test_the_limit_of_the_run_is_one_for_each_check() -> None:
    assert only([check("stuck", hang)], limit=0.05).evidence == "timed out after 0.05 s"


@pytest.mark.parametrize(
    ("probe", "says"),
    [
        (refuse, "no library under /"),
        (forbid, "Permission denied"),
        (crash, "the probe ended by exit code 1: ZeroDivisionError: /"),
        (die, "the probe ended by signal 9"),
    ],
)
def test_a_check_that_could_not_look_is_unknown_and_says_why(probe: Any, says: str) -> None:
    finding = only([check("blind", probe)])
    assert finding.severity is Severity.UNKNOWN
    assert says in finding.evidence


def test_a_check_without_business_here_is_skipped_with_the_reason() -> None:
    idle = check("idle", crash)._replace(skip=lambda settings: f"not under {settings.root}")
    ran = runner.run([idle], Settings())
    assert ran.findings == ()
    assert ran.coverage.skipped == {"idle": "not under /"}


def test_what_libraries_chatter_is_no_part_of_the_answer() -> None:
    assert only([check("chatter", chatter)]).severity is Severity.OK


def test_probes_run_side_by_side() -> None:
    began = time.monotonic()
    runner.run([check(f"stuck{one}", hang, limit=0.3) for one in range(10)], Settings())
    assert time.monotonic() - began < 2.5


def test_every_name_leads_to_a_check_of_that_name() -> None:
    loaded = runner.load(runner.NAMES, Level.ACCEPTANCE)
    assert tuple(one.name for one in loaded) == runner.NAMES
    passive = [one for one in loaded if one.level is Level.PASSIVE]
    assert list(runner.load(runner.NAMES)) == passive
    active = [one for one in loaded if one.level is not Level.ACCEPTANCE]
    assert list(runner.load(runner.NAMES, Level.ACTIVE)) == active


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        runner.load(["nvml", "os"])
