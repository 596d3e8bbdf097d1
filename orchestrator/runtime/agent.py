"""The agent: one per granted node. It owns the node's ranks and runs the machine of membership.

    python -m orchestrator.runtime.agent --home DIR --run JOB.ATTEMPT

Started by the guard. One thread runs one `selectors` loop that never blocks: sockets, ended
children, heartbeats and the machine's own alarm wake it, and no look takes longer than a few
milliseconds. What may block (the register, the store process) is done on benches of their own. The
agent decides nothing by itself: `membership.py` does; this feeds it and carries out what it wishes.

Standard library only, Python 3.10; never imports torch nor the user's code.
"""

from __future__ import annotations

import argparse
import os
import secrets
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.errors import HoldfastError, PermanentError, TransientError
from orchestrator.runtime import (
    checkups,
    chores,
    grants,
    ladder,
    partner,
    processes,
    reports,
    words,
)
from orchestrator.runtime import spec as specs
from orchestrator.runtime import turns as t
from orchestrator.runtime.chores import Bench
from orchestrator.runtime.grants import BadGrantError, Grant
from orchestrator.runtime.kernel import boottime
from orchestrator.runtime.lineage import Because, Cause, Generation, Lineage, Member
from orchestrator.runtime.listener import Listener
from orchestrator.runtime.membership import Membership
from orchestrator.runtime.notebook import Notebook
from orchestrator.runtime.peers import Mouth
from orchestrator.runtime.place import (
    Place,
    boot_id,
    locked,
    raise_token,
    read_json,
    read_token,
    write_json,
)
from orchestrator.runtime.processes import Target
from orchestrator.runtime.rankplan import RankPlan
from orchestrator.runtime.ranks import Ranks
from orchestrator.runtime.register import Register
from orchestrator.runtime.replicas import Replicas
from orchestrator.runtime.reports import AgentReport, RankReport
from orchestrator.runtime.spec import AgentSpec
from orchestrator.runtime.store import open_store
from orchestrator.runtime.storeprocess import StoreProcess
from orchestrator.runtime.tether import Tether
from orchestrator.runtime.words import BadWordError, Phase

BUSY_TICK = 0.04  #: seconds between looks while ranks run or end
IDLE_TICK = 0.25
STORE_LIMIT = 30.0  #: seconds for the store process to import torch and listen
LOCK_LIMIT = 0.05  #: seconds the loop may wait for the node's lock
FAREWELL = 0.3  #: seconds for last replies and words to leave
WARM_AFTER = 5.0  #: seconds after its ranks began that a member readies its store process
GUARD_MARGIN = 1.0  #: seconds that the guard waits longer than the agent, which is gentler
SWEEP_LIMIT = 10.0
SAVE_SECONDS_MAX = 7 * 86_400.0  #: an interval beyond that is no interval


class Agent:
    """One life of an agent."""

    def __init__(self, spec: AgentSpec, place: Place, tether: Tether | None) -> None:
        """Listen, and write where; nothing is started yet."""
        self._spec, self._place, self._tether = spec, place, tether
        self._nonce, self._started_at = secrets.token_hex(8), time.time()
        self._selector = selectors.DefaultSelector()
        self._wake, self._rung = socket.socketpair()
        self._listen_to_signals()
        self._listener = Listener(self._selector, spec.host, spec.key, self._answer)
        self._mouth = Mouth(self._selector, spec.key, self._lose)
        self._ranks = Ranks(spec, place, guard=None if tether is None else os.getppid())
        self._ranks_fds: set[int] = set()
        self._reports: tuple[RankReport, ...] = ()
        self._checkups = checkups.Checkups(spec, self._selector)
        self._partner = partner.Partner(spec, place, self._ranks.memory, self._selector)
        self._replicas = Replicas(spec, place, self._selector)
        self._notes = Notebook()
        self._store = StoreProcess(spec.python, spec.host)
        self._register = (
            None
            if spec.register is None
            else Register(open_store(spec.register, spec.env, exists=True))
        )
        self._register_bench = Bench("register", self._rung, chores.REGISTER_LIMIT)
        self._store_bench = Bench("store process", self._rung, STORE_LIMIT + 1.0)
        self._inbox: deque[t.Given] = deque()
        self._told: set[str] = set()  #: what was already told of the present generation
        self._fenced_at: float | None = None
        self._warm_at = float("inf")  #: when the store process is started for the next repair
        self._why_end = ""
        self._said_deadline: float | None = None
        self._machine = Membership(self._terms(), boottime())
        self._exit = False

    def _terms(self) -> t.Terms:
        spec = self._spec
        return t.Terms(
            job=spec.job,
            attempt=spec.attempt,
            member=Member(spec.node, spec.host, self._listener.port),
            born=self._started_at,
            register=spec.register is not None,
            stop_after=spec.stop_after if spec.when_alone == "stop_after" else None,
        )

    def _listen_to_signals(self) -> None:
        for end in (self._wake, self._rung):
            end.setblocking(False)
        signal.set_wakeup_fd(self._rung.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop("the agent got SIGTERM"))
        self._selector.register(self._wake, selectors.EVENT_READ, self._drain_wake)

    def _drain_wake(self, _events: int) -> None:
        with suppress(BlockingIOError):
            while self._wake.recv(4_096):
                pass

    def announce(self) -> None:
        """Write `agent.json`: from now on the launcher answers for this agent."""
        body = {
            "host": self._spec.host,
            "port": self._listener.port,
            "agent": self._nonce,
            "pid": os.getpid(),
            "guard_pid": os.getppid(),
            "boot_id": self._boot_id,
            "started_at": self._started_at,
        }
        write_json(self._place.agent, body)
        self._notes.write("agent-started", f"listens on {body['host']}:{body['port']}", {})

    @property
    def _boot_id(self) -> str:
        return self._spec.boot_id or boot_id(self._place.home)

    # ---- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Live until the controller says stop, or the guard dies."""
        if self._tether is not None:
            self._selector.register(self._tether, selectors.EVENT_READ, self._feel_tether)
        self._ranks.prepare()
        self._remember()
        while not self._exit:
            self._wait()
            self._tick()
        self._farewell()

    def _remember(self) -> None:
        """Take the grant that an earlier life accepted: none below it may be accepted."""
        body = read_json(self._place.grant)
        if body is not None:
            grant = grants.decode(body)
            self._feed(t.Granted(grant))

    def _wait(self) -> None:
        busy = self._machine.phase is not Phase.CLEAR
        left = min(self._machine.wake_at - boottime(), BUSY_TICK if busy else IDLE_TICK)
        events = self._selector.select(0.0 if self._inbox else max(0.0, left))
        self._set_clocks()
        for key, mask in events:
            key.data(mask)

    def _set_clocks(self) -> None:
        self._listener.now = self._mouth.now = time.monotonic()

    def _tick(self) -> None:
        for bench in (self._register_bench, self._store_bench):
            for delivery in bench.collect():
                given = chores.fed(delivery)
                if given is not None:
                    self._inbox.append(given)
        self._watch_ranks()
        self._feed(t.Tick())
        self._listener.sweep()
        self._mouth.tend()
        self._tend_copies()
        self._checkups.tend(time.monotonic())
        checkups.bury()
        if time.monotonic() >= self._warm_at:
            self._warm_at = float("inf")
            self._warm_store()
        self._hold_guard()
        if self._why_end and self._machine.phase is Phase.CLEAR:
            self._exit = True

    def _feed(self, *given: t.Given) -> None:
        """Tell the machine, carry out its wishes, and whatever these bring about."""
        self._inbox.extend(given)
        while self._inbox:
            for wish in self._machine.take(self._inbox.popleft(), boottime()):
                self._carry_out(wish)

    def _feel_tether(self, _events: int) -> None:
        """End everything: without a guard nobody would clean up after this agent."""
        if self._tether is not None and self._tether.is_cut():
            target = Target(self._place.marker, below=frozenset({os.getpid()}))
            try:
                processes.sweep(target, limit=SWEEP_LIMIT)
                proof = {"at": time.time(), "by": "agent", "why": "the guard died"}
                write_json(self._place.gone, {**proof, "agent": self._nonce})
            finally:  # without the proof a sweep must say it
                os._exit(1)

    def _hold_guard(self) -> None:
        deadline = self._machine.deadline
        if self._tether is not None and deadline != self._said_deadline:
            self._said_deadline = deadline
            grace = self._spec.stop_grace + GUARD_MARGIN
            self._tether.hold_until(None if deadline is None else deadline + grace)

    def _farewell(self) -> None:
        """Let the last replies leave, and go: the guard writes the proof."""
        if self._tether is not None:
            self._tether.say_why(self._why_end)
        until = time.monotonic() + FAREWELL
        while time.monotonic() < until:
            for key, mask in self._selector.select(0.05):
                if key.fileobj is not self._tether:
                    key.data(mask)
        copies = (self._partner, self._replicas)
        for part in (self._mouth, self._listener, self._checkups, *copies, self._ranks):
            part.close()
        self._store.stop()

    # ---- what the machine wishes -----------------------------------------------------------------

    def _carry_out(self, wish: t.Wish) -> None:
        match wish:
            case t.Send(to=to, word=word):
                self._mouth.say(to, words.encode(word))
            case t.KeepGrant(grant=grant):
                with suppress(OSError):  # a full disk: the peers will offer it again
                    self._accept(grant)
            case t.ReadRegister():
                self._read_register()
            case t.Append():
                self._append(wish)
            case t.BindStore():
                self._bind_store()
            case t.StartRanks(generation=generation):
                self._start_ranks(generation)
            case t.EndRanks(why=why, keep=keep):
                self._watch_ranks()  # or an earlier failure here would be taken for the ending's
                self._ranks.end(time.monotonic(), why, keep=keep and self._fenced_in)
            case t.Tell(kind=kind, text=text, data=data):
                self._notes.write(kind, text, data)

    @property
    def _fenced_in(self) -> bool:
        """Whether the register voids whatever a survivor might still write."""
        return self._spec.checkpoints is not None and self._register is not None

    def _accept(self, grant: Grant) -> None:
        """Persist a grant before anything acts on it; raises `OSError` if the disk refuses."""
        if grant != self._machine.grant:
            write_json(self._place.grant, grants.encode(grant))
        self._inbox.append(t.Granted(grant))
        if grant.nodes and grant.nodes[0] == self._machine.me:
            self._warm_store()

    def _warm_store(self) -> None:
        if self._spec.launch == "ranks" and not self._store_bench.busy:
            self._store.start()

    def _read_register(self) -> None:
        register = self._register
        if register is not None:
            refused = self._register_bench.give(lambda: chores.look(register), t.Unread)
            self._inbox.extend(() if refused is None else (refused,))

    def _append(self, wish: t.Append) -> None:
        register = self._register
        if register is not None:
            refused = self._register_bench.give(
                lambda: chores.append(register, wish.draft, wish.lineage), t.Unsure
            )
            self._inbox.extend(() if refused is None else (refused,))

    def _bind_store(self) -> None:
        if self._spec.launch != "ranks":
            self._inbox.append(self._free_port(""))
            return
        refused = self._store_bench.give(self._fresh_store, self._free_port)
        self._inbox.extend(() if refused is None else (refused,))

    def _fresh_store(self) -> t.Given:
        port = self._store.fresh(STORE_LIMIT)
        return self._free_port("") if port is None else t.Bound(port, held=True)

    def _free_port(self, _why: str) -> t.Bound:
        """Return a port that is free now; rank 0 will listen on it."""
        with socket.create_server((self._spec.host, 0)) as probe:
            return t.Bound(int(probe.getsockname()[1]), held=False)

    def _start_ranks(self, generation: Generation) -> None:
        self._told.clear()
        self._fenced_at = None
        self._warm_at = time.monotonic() + WARM_AFTER
        host, _, port = generation.store.rpartition(":")
        members = generation.members
        per_node = self._spec.ranks_per_node
        lineage = self._machine.lineage or Lineage()
        commit = lineage.commit(generation.resume)
        plan = RankPlan(
            generation=generation.number,
            generation_seq=generation.seq,
            members=members,
            group_rank=members.index(self._machine.me),
            ranks_per_node=per_node,
            world_size=per_node * len(members),
            master_addr=host,
            master_port=int(port),
            agent_store=generation.held,
            resume=generation.resume,
            restarts=generation.number - 1,
            memory_floor=ladder.memory_floor(lineage, generation),
            resume_step=None if commit is None else commit.step,
        )
        try:
            self._ranks.start(plan)
        except HoldfastError as error:
            because = Because(Cause.RANK_EXIT, None, f"cannot start: {error}", self._spec.node)
            self._inbox.append(t.RanksTroubled(because, time.time()))

    # ---- the ranks -------------------------------------------------------------------------------

    def _watch_ranks(self) -> None:
        ranks = self._ranks
        self._reports = ranks.look(time.monotonic())
        for jot in ranks.drain_notes():
            self._notes.write(jot.kind, jot.text, jot.data, jot.at)
        if ranks.trouble is not None:
            self._tell_once("trouble", t.RanksTroubled(ranks.trouble, ranks.ended_at or 0.0))
        if ranks.finished:
            self._tell_once("finished", t.RanksFinished())
        if self._machine.phase is Phase.ENDING and ranks.gone:
            self._inbox.append(t.RanksGone())
        if ranks.kept and not self._machine.may_go_on:
            ranks.dismiss(time.monotonic(), "no generation will want them")
        if ranks.fenced:
            self._look_for_fence()
        self._watch_heartbeats()

    def _tend_copies(self) -> None:
        """Have snapshots and checkpoints copied to where they outlive this node and the vault."""
        machine = self._machine
        current = machine.current if machine.phase is Phase.RUNNING else None
        members = () if current is None else current.members
        to = partner.candidates(machine.me, members, machine.grant)
        leads = bool(members) and members[0] == machine.me
        for kind, text, data in self._partner.tend(to) + self._replicas.tend(leads=leads):
            self._notes.write(kind, text, data)

    def _tell_once(self, key: str, given: t.Given) -> None:
        if key not in self._told and self._machine.phase is not Phase.CLEAR:
            self._told.add(key)
            self._inbox.append(given)

    def _look_for_fence(self) -> None:
        """See whether the register agrees with a rank that found itself fenced, and stopped.

        If it was read since and says nothing of it, the rank's end is a failure like any other.
        """
        if self._fenced_at is None:
            self._fenced_at = boottime()
        elif self._machine.read_at > self._fenced_at:
            fingerprint = "exit 93: fenced, says the rank; the register does not"
            because = Because(Cause.RANK_EXIT, None, fingerprint, self._spec.node)
            self._tell_once("trouble", t.RanksTroubled(because, time.time()))

    def _watch_heartbeats(self) -> None:
        wanted = set(self._ranks.fds())
        for number in self._ranks_fds - wanted:
            with suppress(KeyError, ValueError):
                self._selector.unregister(number)
        for number in wanted - self._ranks_fds:
            self._selector.register(number, selectors.EVENT_READ, lambda _: None)
        self._ranks_fds = wanted

    # ---- what others ask -------------------------------------------------------------------------

    def _lose(self, member: Member) -> None:
        self._inbox.append(t.Broken(member))  # it may be noticed while a wish is carried out

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer one proven request; raises `HoldfastError`, which the caller is told."""
        ask = body.get("ask")
        if ask == "word":
            with suppress(BadWordError):  # of another version: it counts as silence
                self._feed(t.Heard(words.decode(body.get("word"))))
            return {}
        if ask == "harbour":
            return self._harbour()
        try:
            return self._answer_controller(ask, body)
        except OSError as error:
            raise TransientError(f"the node's disk refuses: {error}") from error

    def _answer_controller(self, ask: object, body: dict[str, Any]) -> dict[str, Any]:
        self._check_token(body.get("token"))
        if ask == "status":
            return self._tell_status(body)
        if ask == "grant":
            return self._take_grant(body.get("grant"))
        if ask == "stop":
            self._stop(f"the controller says: {str(body.get('reason', ''))[:300]}")
            return {"stopping": True}
        if ask == "gone":
            return self._take_gone(body.get("members"))
        raise PermanentError(f"nobody knows how to {str(ask)[:40]!r} here")

    def _harbour(self) -> dict[str, Any]:
        """Tell a peer where copies of its snapshots are taken in; a member takes none."""
        latest = self._machine.latest
        if latest is not None and self._machine.me in latest.members:
            raise PermanentError("this node is a member of the gang itself")
        return {"port": self._partner.door()}

    def _check_token(self, token: object) -> None:
        """Refuse a controller that lost its lease; remember the highest token on disk."""
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise PermanentError("a request of the controller carries its token")
        highest = read_token(self._place.home)
        if token > highest:
            with locked(self._place.home, limit=LOCK_LIMIT):
                highest = raise_token(self._place.home, token)
        if token < highest:
            raise PermanentError(f"token {token} is below {highest}, the highest seen here")

    def _tell_status(self, body: Mapping[str, Any]) -> dict[str, Any]:
        now = boottime()
        confirm, heard = body.get("confirm"), body.get("heard")
        sent_at = self._notes.confirm(
            confirm if isinstance(confirm, int) else 0,
            heard if isinstance(heard, float) else None,
        )
        if sent_at is not None:
            self._feed(t.Confirmed(sent_at))
        self._pace(body.get("save_seconds"))
        self._checkups.pace(body.get("health_seconds"))
        report = self._report()
        self._notes.answered(report.notes, report.at, now)
        return reports.encode(report)

    def _pace(self, seconds: object) -> None:
        """Pass on how long the controller wants to lie between two durable checkpoints."""
        if isinstance(seconds, float) and 0 < seconds <= SAVE_SECONDS_MAX:
            self._ranks.pace(seconds)

    def _take_grant(self, body: Any) -> dict[str, Any]:
        try:
            grant = grants.decode(body)
        except BadGrantError as error:
            return {"refused": str(error)}
        objection = self._machine.objection(grant)
        if objection is not None:
            self._notes.write("grant-refused", objection, {"grant": grant.number})
            return {"refused": objection}
        try:
            self._accept(grant)
        except OSError as error:
            return {"refused": f"it cannot be kept on disk: {error}"}
        self._feed()
        return {"accepted": True}

    def _take_gone(self, members: Any) -> dict[str, Any]:
        """Take the controller's word that nothing runs on some nodes any more."""
        try:
            gone = [Member(str(m["node"]), str(m["host"]), int(m["port"])) for m in members]
        except (TypeError, KeyError, ValueError) as error:
            raise PermanentError(f"members cannot be read: {error!r}") from error
        self._feed(*(t.Gone(member) for member in gone))
        return {"noted": len(gone)}

    def _stop(self, why: str) -> None:
        self._why_end = self._why_end or why
        self._inbox.append(t.StopAsked(why))

    def _report(self) -> AgentReport:
        machine, spec = self._machine, self._spec
        current, latest, failure = machine.current, machine.latest, machine.failure
        return AgentReport(
            protocol=reports.PROTOCOL,
            node=spec.node,
            job=spec.job,
            attempt=spec.attempt,
            agent=self._nonce,
            boot_id=self._boot_id,
            pid=os.getpid(),
            host=spec.host,
            port=self._listener.port,
            at=time.time(),
            started_at=self._started_at,
            stage=machine.stage,
            grant=0 if machine.grant is None else machine.grant.number,
            token=read_token(self._place.home),
            generation=None if current is None else current.number,
            generation_seq=None if current is None else current.seq,
            members=() if latest is None else tuple(member.node for member in latest.members),
            peers_lost=machine.peers_lost,
            ranks=self._reports,
            notes=self._notes.unconfirmed(),
            findings=self._checkups.findings,
            limits=self._ranks.limits(),
            warmth=self._ranks.warmth,
            failure={} if failure is None else {**asdict(failure), "cause": failure.cause.value},
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent of one attempt on this node."""
    parser = argparse.ArgumentParser(prog="orchestrator.runtime.agent")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--run", required=True)
    asked = parser.parse_args(argv)
    tether = Tether.from_environment()
    place = Place(asked.home, asked.run)
    try:
        spec = specs.decode(read_json(place.spec))
        agent = Agent(spec, place, tether)
        agent.announce()
        agent.run()
    except HoldfastError as error:
        print(f"agent: {error}", file=sys.stderr, flush=True)
        if tether is not None:
            tether.say_why(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
