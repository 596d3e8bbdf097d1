"""The controller's hands in the simulated world: the effects that its actuators would have.

Every refusal of the real ones is here too: a lower token, an agent that is another one by now, a
node without a route, a provider that answers 503.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from orchestrator.actuators.hands import Done
from orchestrator.actuators.specs import wire_grant
from orchestrator.core.decisions import (
    AppendFence,
    Effect,
    Examine,
    GiveGrant,
    Repair,
    StartAgent,
    StopAgent,
    SweepNode,
    TestPairs,
    key,
)
from orchestrator.core.fleet import Fleet
from orchestrator.core.jobs import Attempt, SeatGrant
from orchestrator.core.nodes import JobName, NodeName
from orchestrator.core.observations import AgentGone, Examined, Observation, PairRate, PairsTested
from orchestrator.errors import PermanentError, TransientError
from orchestrator.runtime.grants import Grant
from orchestrator.runtime.lineage import Fence, Record
from orchestrator.simulation.agenda import BEGIN, moment
from orchestrator.simulation.eyes import SimEyes
from orchestrator.simulation.world import World

EPOCH = BEGIN.timestamp()


@dataclass(eq=False)
class SimHands:
    """Acts in the world for one controller."""

    world: World
    eyes: SimEyes
    skew: Callable[[], float] = lambda: 0.0
    done: dict[str, int] = field(default_factory=dict)  #: key -> how often it was carried out
    _wired: tuple[SeatGrant | None, Grant] | None = None

    def carry_out(self, decision: Effect, fleet: Fleet, token: int) -> Done:
        """Do it. Raises a `HoldfastError` if it could not be done."""
        done = self._carry_out(decision, fleet, token)
        name = key(decision)
        self.done[name] = self.done.get(name, 0) + 1
        return done

    def _carry_out(self, decision: Effect, fleet: Fleet, token: int) -> Done:
        match decision:
            case AppendFence():
                return self._append_fence(decision, fleet, token)
            case StartAgent(node=node, job=job, attempt=attempt):
                run = (job, attempt)
                self.world.start_agent(node, run, token, fleet.jobs[job].spec)
                return Done("listens", tuple(self.eyes.answer(node, run)))
            case GiveGrant():
                return self._give(decision, fleet, token)
            case (
                StopAgent(node=node, job=job, attempt=attempt)
                | SweepNode(node=node, job=job, attempt=attempt)
            ):
                proof = self.world.sweep(node, (job, attempt), token)
                at = moment(self.world.now + self.skew())
                gone: Observation = AgentGone(node, job, attempt, at, proof)
                return Done(f"nothing of it is left: {proof}", (gone,))
            case Repair(node=node, step=step):
                takes = self.world.repair(node, step)
                return Done(f"{step} accepted, {takes:.0f} s")
            case TestPairs(inquiry=inquiry, round=number, pairs=pairs):
                told = {pair: self.world.pair(*pair) for pair in pairs if self._reaches(pair)}
                rates = tuple(PairRate(*pair, rate) for pair, rate in told.items())
                at = moment(self.world.now + self.skew())
                tested: Observation = PairsTested(inquiry, number, rates, at)
                return Done(f"{len(rates)} pairs tested", (tested,))
            case Examine(node=node):
                machine, now = self.world.machines[node], self.world.now
                if not machine.reachable:
                    raise TransientError(f"{node}: no route to host")
                at = moment(now + self.skew())
                found: Observation = Examined(node, at, machine.boot_id, machine.findings(now))
                return Done("examined", (found,))
            case _:
                assert_never(decision)

    def _reaches(self, pair: tuple[NodeName, NodeName]) -> bool:
        return all(self.world.machines[node].reachable for node in pair)

    def _append_fence(self, decision: AppendFence, fleet: Fleet, token: int) -> Done:
        register = self.world.registers[decision.job]
        if register.down:
            raise TransientError(f"the register of {decision.job} does not answer")
        lineage, by = register.lineage, fleet.jobs[decision.job].signature
        if lineage.attempt < decision.attempt:

            def make(seq: int) -> Record:
                return Fence(seq, f"f{seq}", token, decision.attempt, EPOCH + self.world.now, by)

            after = lineage.then(make(lineage.next_seq))
            if len(after.void) > len(lineage.void):
                raise PermanentError(f"a fence would be void: {after.void[-1].reason}")
            register.append(make)
            self._tell_gangs(decision.job)
        fence = register.lineage.fence
        if fence is None or (fence.attempt, fence.by) != (decision.attempt, by):
            raise TransientError(f"the register of {decision.job} is at another attempt")
        seen: Observation = register.seen(self.world.now + self.skew())
        return Done(f"attempt {decision.attempt} fences off every older one", (seen,))

    def _tell_gangs(self, job: JobName) -> None:
        for run, gang in list(self.world.gangs.items()):
            if run[0] == job:
                gang.register_changed()

    def _give(self, decision: GiveGrant, fleet: Fleet, token: int) -> Done:
        run = (decision.job, decision.attempt)
        attempt = _attempt(fleet, decision)
        grant = self._wire(fleet, attempt, token)
        machine = self.world.machines[decision.node]
        agent = machine.agents.get(run)
        if not machine.reachable or agent is None:
            raise TransientError(f"{decision.node}: connection refused")
        if agent.nonce != decision.agent:
            raise TransientError(f"{decision.node}: its agent is another one by now")
        if token < agent.token:
            raise PermanentError(f"{decision.node}: token {token} is below {agent.token}")
        agent.token = token
        objection = self.world.gangs[run].give(decision.node, grant)
        if objection is not None:
            raise TransientError(f"{decision.node} refused grant {grant.number}: {objection}")
        return Done(f"accepted grant {grant.number}", tuple(self.eyes.answer(decision.node, run)))

    def _wire(self, fleet: Fleet, attempt: Attempt, token: int) -> Grant:
        """Return the grant as its agents read it; the same object for the same grant."""
        seats = attempt.grant
        if self._wired is None or self._wired[0] is not seats or self._wired[1].token != token:
            self._wired = (seats, wire_grant(fleet, attempt, token))
        return self._wired[1]


def _attempt(fleet: Fleet, decision: GiveGrant) -> Attempt:
    for attempt in fleet.attempts:
        if (attempt.job, attempt.number) == (decision.job, decision.attempt):
            return attempt
    raise PermanentError(f"attempt {decision.job}/{decision.attempt} is not in the ledger")
