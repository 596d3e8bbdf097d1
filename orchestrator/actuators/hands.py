"""The hands: one function per decision that touches the world, found by `match`.

Called from a cluster's pool, with the intent already written. A function returns what it did and
what it saw on the way; whatever it raises becomes the outcome. Every effect carries the
controller's token: agents and nodes refuse a lower one, a fence with a lower one is void. The
calls that cannot compare tokens (the provider's) are made only with more than their own time-out
left on the lease.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

from orchestrator.actuators.specs import agent_spec, wire_grant
from orchestrator.core.acceptance import CHECKS, Stage
from orchestrator.core.decisions import (
    AppendFence,
    Effect,
    Examine,
    GiveGrant,
    Repair,
    RepairStep,
    StartAgent,
    StopAgent,
    SweepNode,
    TestPairs,
)
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import Attempt
from orchestrator.core.nodes import ClusterName, JobName, NodeName, NodeState
from orchestrator.core.observations import (
    AgentGone,
    Examined,
    NodeReached,
    Observation,
    PairRate,
    PairsTested,
)
from orchestrator.core.verdicts import Severity
from orchestrator.engines.api import AgentAddress
from orchestrator.engines.site import Keys, Site
from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.observers.findings import parse_output
from orchestrator.observers.pairs import PairTester
from orchestrator.observers.registers import register_seen
from orchestrator.observers.reports import Asked, ask_agent
from orchestrator.runtime import grants
from orchestrator.runtime.lineage import Fence, Lineage, Record
from orchestrator.runtime.register import Overtaken, Register
from providers.api import Capability, Provider

CALL_LIMIT = 5.0  #: seconds for one request to an agent
PROVIDER_LIMIT = 10.0  #: seconds a provider's call may take; less lease than that: not made
ACTIVE = (
    *(CHECKS[Stage.ACTIVE] or ()),
    *(CHECKS[Stage.STORAGE] or ()),
    *(CHECKS[Stage.TRAINING] or ()),
)
CHECK_LIMIT, EXAMINE_LIMIT = 180.0, 900.0  #: seconds of one active check, and of all of them
LIGHT, HEAVY = 16 << 20, 256 << 20  #: bytes of a test of a pair: beside ranks, and without
PAIR_LIMIT = 15.0  #: seconds of one test of a pair
FENCE_TRIES = 8  #: other writers may win a seq that often before we look again later


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a decision."""

    text: str
    seen: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True)
class Hands:
    """Everything the decisions need to touch the world."""

    sites: Mapping[ClusterName, Site]
    keys: Keys
    register: Callable[[JobName, Fleet], Register]
    lease_left: Callable[[], float]  #: seconds

    def carry_out(self, decision: Effect, fleet: Fleet, token: int) -> Done:
        """Do it. Raises a `HoldfastError` if it could not be done."""
        match decision:
            case AppendFence():
                return self._append_fence(decision, fleet, token)
            case StartAgent():
                return self._start(decision, fleet, token)
            case GiveGrant():
                return self._give(decision, fleet, token)
            case StopAgent():
                return self._stop(decision, fleet, token)
            case SweepNode():
                return self._sweep(decision, fleet, token)
            case Repair():
                return self._repair(decision, fleet)
            case TestPairs():
                return self._test_pairs(decision)
            case Examine():
                return self._examine(decision, fleet, token)
            case _:
                assert_never(decision)

    def _site(self, fleet: Fleet, node: NodeName) -> Site:
        return self.sites[fleet.nodes[node].cluster]

    def _append_fence(self, decision: AppendFence, fleet: Fleet, token: int) -> Done:
        register = self.register(decision.job, fleet)
        lineage = register.read()
        by = fleet.jobs[decision.job].signature
        for _ in range(FENCE_TRIES):
            if lineage.attempt >= decision.attempt:
                break  # it may be ours, from before a restart
            make = _fence(decision, token, by)
            _would_count(lineage, make(lineage.next_seq))
            answer = register.append(make, lineage)
            lineage = answer.lineage if isinstance(answer, Overtaken) else register.read()
        fence = lineage.fence
        if fence is None or (fence.attempt, fence.by) != (decision.attempt, by):
            raise TransientError(
                f"the register of {decision.job} is at attempt {lineage.attempt} of "
                f"{fence.by if fence else 'nobody'}, not at {decision.attempt} of {by}"
            )
        seen = register_seen(lineage, decision.job, datetime.now(UTC))
        return Done(f"attempt {decision.attempt} fences off every older one", (seen,))

    def _start(self, decision: StartAgent, fleet: Fleet, token: int) -> Done:
        site = self._site(fleet, decision.node)
        key = self.keys.key(decision.job, decision.attempt)
        spec = agent_spec(fleet, site, decision, token, key)
        address = site.engine.start(decision.node, spec)
        asked = Asked(decision.node, decision.job, decision.attempt, address, confirm=0)
        seen = ask_agent(site, self.keys, asked, token, datetime.now(UTC))
        return Done(f"listens on {address.host}:{address.port}", seen)

    def _give(self, decision: GiveGrant, fleet: Fleet, token: int) -> Done:
        attempt = _attempt(fleet, decision.job, decision.attempt)
        grant = wire_grant(fleet, attempt, token)
        address = _address(fleet, decision.node, decision.job, decision.attempt)
        if address.agent != decision.agent:
            raise TransientError(f"{decision.node}: its agent is another one by now")
        key = self.keys.key(decision.job, decision.attempt)
        body = {"ask": "grant", "token": token, "grant": grants.encode(grant)}
        site = self._site(fleet, decision.node)
        said = site.call(decision.node, address, key, body, timeout=CALL_LIMIT)
        if not said.get("accepted"):
            raise TransientError(f"{decision.node} refused grant {grant.number}: {said!r:.200}")
        return Done(f"accepted grant {grant.number}", self._look(decision, fleet, address, token))

    def _stop(self, decision: StopAgent, fleet: Fleet, token: int) -> Done:
        """Ask the agent to end its ranks and itself; if it does not answer, sweep the node."""
        site = self._site(fleet, decision.node)
        try:
            address = _address(fleet, decision.node, decision.job, decision.attempt)
            key = self.keys.key(decision.job, decision.attempt)
            body = {"ask": "stop", "token": token, "reason": decision.reason}
            site.call(decision.node, address, key, body, timeout=CALL_LIMIT)
        except HoldfastError:
            return self._swept(site, decision, token)
        grace = fleet.jobs[decision.job].spec.stop_grace.total_seconds()
        return self._wait_gone(site, decision, token, limit=grace + CALL_LIMIT)

    def _wait_gone(self, site: Site, decision: StopAgent, token: int, *, limit: float) -> Done:
        end = time.monotonic() + limit
        while time.monotonic() < end:
            found = site.engine.find(decision.node, _run(decision))
            if found.agent is None and found.gone is not None:
                return _gone(decision, str(found.gone.get("why")))
            time.sleep(0.1)
        return self._swept(site, decision, token)

    def _sweep(self, decision: SweepNode, fleet: Fleet, token: int) -> Done:
        return self._swept(self._site(fleet, decision.node), decision, token)

    def _swept(self, site: Site, decision: SweepNode | StopAgent, token: int) -> Done:
        proof = site.engine.sweep(decision.node, _run(decision), token)
        return _gone(decision, f"swept: {proof.get('why', '')}")

    def _repair(self, decision: Repair, fleet: Fleet) -> Done:
        left = self.lease_left()
        if left < PROVIDER_LIMIT:
            raise TransientError(f"only {left:.0f} s left on the lease: {decision.step} waits")
        state = fleet.nodes[decision.node].state
        if state is not NodeState.REPAIRING:  # it went somewhere else since this was decided
            raise PermanentError(f"{decision.node} is {state}: no {decision.step}")
        provider = self._site(fleet, decision.node).provider
        if Capability(decision.step.value) not in provider.capabilities:
            raise PermanentError(f"{provider.name} cannot {decision.step} a machine")
        if decision.step is RepairStep.REPLACE:
            machine = provider.replace(decision.node)
            return Done(f"machine {machine} takes its place; the next listing shows it")
        boot_id = _step(provider, decision.step)(decision.node)
        if not boot_id:
            return Done(f"{decision.step} begun; its boot is seen when it answers again")
        reached = NodeReached(decision.node, datetime.now(UTC), boot_id)
        return Done(f"{decision.step} done, boot {boot_id}", (reached,))

    def _examine(self, decision: Examine, fleet: Fleet, token: int) -> Done:
        site, node = self._site(fleet, decision.node), decision.node
        belief = fleet.beliefs.nodes.get(node)
        boot_id = belief.boot_id if belief is not None else ""
        try:
            argv = [*site.checks(node), "--level", "active", "--only", ",".join(ACTIVE)]
            argv += ["--limit", f"{CHECK_LIMIT:g}", *(["--boot-id", boot_id] if boot_id else [])]
            out, stopped = site.engine.examine(node, argv, token, EXAMINE_LIMIT)
        except PermanentError as error:  # and it would not end better in a minute
            seen = Examined(node, datetime.now(UTC), boot_id, ())
            return Done(f"it cannot be examined: {error}", (seen,))
        findings, complete = parse_output(out)
        seen = Examined(node, datetime.now(UTC), boot_id, findings, stopped)
        if stopped:
            return Done("work came, and ended it", (seen,))
        bad = [one.detector for one in findings if one.severity is Severity.CRITICAL]
        words = f"found: {', '.join(bad)}" if bad else "nothing critical was found"
        return Done(words if complete else f"{words}; it was cut short", (seen,))

    def _test_pairs(self, decision: TestPairs) -> Done:
        inquiry = decision.inquiry
        size = LIGHT if inquiry.gpu is None else HEAVY
        tester = PairTester(self.sites[inquiry.cluster], size, PAIR_LIMIT, inquiry.gpu)
        told = tester.test_reached(decision.pairs)
        rates = tuple(PairRate(*pair, told[pair]) for pair in decision.pairs if pair in told)
        seen = PairsTested(inquiry, decision.round, rates, datetime.now(UTC))
        undone = sum(one.gbps is None for one in rates)
        return Done(f"{len(rates)} pairs tested, {undone} of them not done", (seen,))

    def _look(
        self, decision: GiveGrant, fleet: Fleet, address: AgentAddress, token: int
    ) -> tuple[Observation, ...]:
        asked = Asked(decision.node, decision.job, decision.attempt, address, confirm=0)
        return ask_agent(
            self._site(fleet, decision.node), self.keys, asked, token, datetime.now(UTC)
        )


def _fence(decision: AppendFence, token: int, by: str) -> Callable[[int], Record]:
    nonce = secrets.token_hex(8)

    def make(seq: int) -> Record:
        return Fence(seq, nonce, token, decision.attempt, time.time(), by)

    return make


def _step(provider: Provider, step: RepairStep) -> Callable[[str], str]:
    """Return the provider's method for a step that leaves the machine in its place."""
    match step:
        case RepairStep.RESET:
            return provider.reset
        case RepairStep.REBOOT:
            return provider.reboot
        case RepairStep.REPROVISION:
            return provider.reprovision
        case RepairStep.REPLACE:
            return provider.replace


def _would_count(lineage: Lineage, record: Record) -> None:
    """Raise `PermanentError` if a record would be void: the register keeps such ones for ever."""
    after = lineage.then(record)
    if len(after.void) > len(lineage.void):
        raise PermanentError(f"a fence would be void: {after.void[-1].reason}")


def _attempt(fleet: Fleet, job: JobName, number: int) -> Attempt:
    for attempt in fleet.attempts:
        if (attempt.job, attempt.number) == (job, number):
            return attempt
    raise PermanentError(f"attempt {job}/{number} is not in the ledger")


def _address(fleet: Fleet, node: NodeName, job: JobName, attempt: int) -> AgentAddress:
    belief = fleet.beliefs.nodes.get(node)
    agent = belief.agent(job, attempt) if belief else None
    if agent is None or agent.report is None:
        raise TransientError(f"{node}: no agent of {job}/{attempt} has answered yet")
    return AgentAddress(agent.report.host, agent.report.port, agent.report.agent)


def _run(decision: SweepNode | StopAgent) -> str:
    return f"{decision.job}.{decision.attempt}"


def _gone(decision: SweepNode | StopAgent, proof: str) -> Done:
    gone = AgentGone(
        decision.node, decision.job, decision.attempt, datetime.now(UTC), proof or "stopped"
    )
    return Done(f"nothing of it is left: {proof}", (gone,))
