"""Attempts: fenced, opened, kept going, ended, moved; and what that means for their job.

Every step is derived from the level: an attempt that was cut off between two decisions by a crash
of the controller goes on from where the ledger stands. The fence always comes first; a job that
commits only through the register may then begin anew at once, any other waits for proof or for its
own declared time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestrator.core.agents import start_agents, sweep_silent
from orchestrator.core.decisions import AppendFence, MoveAttempt, MoveJob, MoveNode, OpenIncident
from orchestrator.core.gang import Gang, read_gang, unheard, vouched
from orchestrator.core.granting import give_grant, issue_grant
from orchestrator.core.jobs import OVER, Attempt, AttemptState, Job, JobState, Outcome, WhenAlone
from orchestrator.core.look import LIVE, Look
from orchestrator.core.nodes import JobName, NodeName
from orchestrator.core.pages import Page
from orchestrator.core.placement import choose_cluster, fence_is_ours, fenced, spares
from orchestrator.core.seating import in_sight, keep_seats
from orchestrator.runtime.reports import Stage

A, J = AttemptState, JobState
LATE = 1.25  #: intervals after which a checkpoint that did not come is missed
ALIKE_MAX = 3  #: attempts that fail alike with nothing committed in between: the job's own fault


def tend_attempt(look: Look, attempt: Attempt) -> None:
    """Take an attempt that lives as far as the snapshot allows."""
    if attempt.state in LIVE:
        _end(look, attempt)
        _keep(look, attempt)


def by_priority(look: Look, run: tuple[JobName, int]) -> tuple[int, JobName, int]:
    """Return the place of an attempt among those that live: who may take spares first."""
    job, number = run
    return (-look.job(job).spec.priority, job, number)


def shortage(look: Look, attempt: Attempt) -> str | None:
    """Return why an attempt cannot have enough nodes on its cluster now; None if it can.

    A gang out of our sight that still commits is not short: it is only unseen.
    """
    question = ("shortage", attempt.job, attempt.number)
    return look.once(question, lambda: _shortage(look, attempt))


def _shortage(look: Look, attempt: Attempt) -> str | None:
    spec = look.job(attempt.job).spec
    seats = look.seats(attempt)
    away = [one for one in unheard(look, attempt) if not in_sight(look, attempt, one.name)]
    if away:
        heard_of = vouched(look, attempt)
        away = [one for one in away if one.name not in heard_of]
    have = len(seats) - len(away) + len(spares(look, attempt.cluster, spec))
    if have >= spec.nodes_min or (away and _commits(look, attempt)):
        return None
    return f"{attempt.job} needs {spec.nodes_min} nodes, {attempt.cluster} has {have}"


def _commits(look: Look, attempt: Attempt) -> bool:
    """Say whether its commits still come: the last one is about an interval old, or less.

    Bounded by patience: a gang that writes once in twelve hours is not waited for that long.
    """
    advanced, policy = look.register(attempt.job).advanced, look.policy
    pause = LATE * attempt.every if attempt.every is not None else timedelta(0)
    window = policy.silence_max + min(pause, 2 * policy.patience)
    return advanced is not None and look.recent(advanced[1], window)


def waits_for(look: Look, attempt: Attempt) -> str | None:
    """Return what an opening attempt must wait for before its first rank may start."""
    job = look.job(attempt.job)
    if job.spec.register is not None and fenced(look, job.name) < attempt.number:
        return "its fence is not in the register yet"
    older = [one for one in look.attempts_of(job.name) if one.number < attempt.number]
    running = [one for one in older if not look.all_gone(one)]
    unfenced = [one for one in running if job.spec.register is None or one.number <= job.former]
    if not running or (not unfenced and job.spec.when_alone is WhenAlone.CONTINUE):
        return None
    if job.spec.when_alone is WhenAlone.CONTINUE:
        why = "there is no register" if job.spec.register is None else "had another register"
        return f"ranks of attempt {unfenced[0].number} may still run, and {why}"
    if look.due(
        _heard_last(look, attempt, running) + job.spec.stop_after + look.policy.alone_margin
    ):
        return None
    return f"ranks of attempt {running[0].number} may run until they notice that they are alone"


def _heard_last(look: Look, attempt: Attempt, running: list[Attempt]) -> datetime:
    """Return the later of the fence and the last answer of an older attempt's agent."""
    moments = [attempt.opened_at]
    seen = look.register(attempt.job).seen
    if seen is not None and seen.fence is not None:
        moments.append(datetime.fromtimestamp(seen.fence.at, UTC))
    for one in running:
        moments += [a.answered_at for _, a in look.agents(one) if a.answered_at is not None]
    return max(moments)


# --- attempts that live ---------------------------------------------------------------------


def _keep(look: Look, old: Attempt) -> None:
    """Keep an attempt going: its fence, its seats, its agents, its grant."""
    attempt = look.attempt(old.job, old.number)
    if attempt is None or attempt.state not in LIVE:
        return
    keep_seats(look, attempt, read_gang(look, attempt))
    if attempt.state is A.OPENING:
        _open(look, attempt)
        return
    gang = read_gang(look, attempt)
    sweep_silent(look, attempt, gang)
    start_agents(look, attempt)
    issue_grant(look, attempt, gang)
    newest = look.attempt(attempt.job, attempt.number)
    if newest is not None:
        give_grant(look, newest)


def _fenced_off(look: Look, job: Job, attempt: Attempt) -> bool:
    """Say whether somebody else's fence, or a later one, has ended this attempt."""
    last = fenced(look, job.name)
    if job.spec.register is None or last < attempt.number:
        return False
    return last > attempt.number or not fence_is_ours(look, job, attempt.number)


def _open(look: Look, attempt: Attempt) -> None:
    spec, last = look.job(attempt.job).spec, fenced(look, attempt.job)
    if spec.register is not None and last < attempt.number:
        reason = f"attempt {attempt.number} on {attempt.cluster} begins"
        look.ask(AppendFence(attempt.job, last + 1, reason))
    elif waits_for(look, attempt) is None:
        fence = "its fence counts" if spec.register is not None else "nothing older runs"
        look.do(MoveAttempt(attempt.job, attempt.number, A.OPEN, fence))


def _end(look: Look, attempt: Attempt) -> None:
    """End an attempt that is over, that people want ended, or that has no future here."""
    job = look.job(attempt.job)
    gang = read_gang(look, attempt)
    if job.state is J.STOPPING:
        _finish(look, attempt, Outcome.STOPPED, job.reason)
    elif _fenced_off(look, job, attempt):
        reason = f"the register is at attempt {fenced(look, job.name)}: fenced off"
        _finish(look, attempt, Outcome.STOPPED, reason)
    elif gang.members and all(_stage(gang, name) is Stage.FINISHED for name in gang.members):
        _finish(look, attempt, Outcome.SUCCEEDED, "every rank ended well")
    elif (failure := _failure(look, attempt, gang)) is not None:
        _fail(look, attempt, *failure)
    else:
        _move(look, attempt)


def _finish(look: Look, attempt: Attempt, outcome: Outcome, reason: str) -> None:
    look.do(MoveAttempt(attempt.job, attempt.number, A.CLOSING, reason, outcome))


def _fail(look: Look, attempt: Attempt, fingerprint: str, reason: str) -> None:
    seen = look.register(attempt.job).seen
    commits = seen.commits if seen is not None else 0
    failed = Outcome.FAILED
    numbers = (attempt.job, attempt.number, A.CLOSING)
    look.do(MoveAttempt(*numbers, reason, failed, fingerprint=fingerprint, commits=commits))


def _failure(look: Look, attempt: Attempt, gang: Gang) -> tuple[str, str] | None:
    """Return (fingerprint, words) if the gang gave up, or ended in part."""
    if not gang.over:
        return None
    for node in look.seats(attempt):
        report = gang.reports.get(node.name)
        if report is not None and report.stage is Stage.FAILED:
            mark = str(report.failure.get("fingerprint") or report.failure.get("cause") or "")
            return mark, f"the gang gave up on {node.name}: {mark or 'no reason given'}"
    done = [name for name in gang.members if _stage(gang, name) is Stage.FINISHED]
    rest = [name for name in gang.members if _stage(gang, name) is not Stage.FINISHED]
    if done and rest and all(_lost_for_good(look, attempt, name) for name in rest):
        return "ended in part", f"{', '.join(done)} ended well, {', '.join(rest)} did not"
    return None


def _lost_for_good(look: Look, attempt: Attempt, name: str) -> bool:
    """Say whether a member of a gang that ended elsewhere cannot tell its own end any more."""
    for node, agent in look.agents(attempt):
        if node == name and agent.gone_at is not None:
            return look.due(agent.gone_at + look.policy.silence_max)
        if node == name and look.starts(node, attempt)[1:]:
            return look.due(look.starts(node, attempt)[-1] + look.policy.silence_max)
    return False


def _stage(gang: Gang, name: NodeName) -> Stage | None:
    report = gang.reports.get(name)
    return None if report is None else report.stage


def _move(look: Look, attempt: Attempt) -> None:
    """Give an attempt up for another cluster once patience with this one is over."""
    job = look.job(attempt.job)
    short = shortage(look, attempt)
    told = look.incident(*no_spare(job))
    if short is None or told is None or not look.lasts(told.opened_at, look.policy.patience):
        return
    stuck = job.spec.register is None and job.spec.when_alone is WhenAlone.CONTINUE
    if stuck and not look.all_gone(attempt):
        return
    other = choose_cluster(look, job, but=attempt.cluster)
    if other is None:
        return
    reason = f"{short}; moving to {other}"
    if look.incident(Page.CLUSTER_LOST, job.name) is None:
        look.do(OpenIncident(Page.CLUSTER_LOST, job.name, reason))
    _finish(look, attempt, Outcome.MOVED, reason)


def no_spare(job: Job) -> tuple[Page, str]:
    """Name the incident whose beginning patience is counted from."""
    return (Page.NO_SPARE, job.name)


# --- attempts that end ----------------------------------------------------------------------


def close_attempt(look: Look, attempt: Attempt) -> None:
    """Let go of each node where nothing runs any more; close when that is everywhere."""
    if attempt.state is not A.CLOSING:
        return
    for node in look.seats(attempt):
        if look.gone(node.name, attempt):
            reason = f"nothing of {attempt.job}, attempt {attempt.number}, is left there"
            look.do(MoveNode(node.name, node.state, node.rest, reason))
    if not look.seats(attempt) and look.all_gone(attempt):
        reason = attempt.reason or "every agent is proven gone"
        look.do(MoveAttempt(attempt.job, attempt.number, A.CLOSED, reason))


def settle_job(look: Look, job: Job) -> None:
    """Bring a job's state in line with its attempts."""
    if job.state in OVER:
        return
    mine = look.attempts_of(job.name)
    if any(one.state in LIVE for one in mine):
        if job.state is J.PENDING:
            look.do(MoveJob(job.name, J.RUNNING, f"attempt {mine[-1].number} lives"))
        return
    last = mine[-1] if mine else None
    if last is not None and last.outcome is Outcome.SUCCEEDED:
        if last.state is A.CLOSED or look.lasts(last.since, look.policy.silence_max):
            look.do(MoveJob(job.name, J.SUCCEEDED, last.reason))
    elif job.state is J.STOPPING:
        if all(one.state is A.CLOSED for one in mine):
            look.do(MoveJob(job.name, J.STOPPED, job.reason))
    elif job.state is J.RUNNING:
        _again_or_never(look, job, last)


def _again_or_never(look: Look, job: Job, last: Attempt | None) -> None:
    if last is None or last.outcome is not Outcome.FAILED:
        reason = last.reason if last is not None else "it has no attempt"
        look.do(MoveJob(job.name, J.PENDING, reason))
    elif job.alike >= ALIKE_MAX:
        words = f"{job.alike} attempts in a row failed alike with nothing committed in between"
        look.do(MoveJob(job.name, J.FAILED, f"{words}: {last.reason}"))
    elif job.fruitless >= job.spec.attempts_max:
        words = f"{job.fruitless} attempts in a row committed nothing"
        look.do(MoveJob(job.name, J.FAILED, f"{words}: {last.reason}"))
    else:
        look.do(MoveJob(job.name, J.PENDING, last.reason))
