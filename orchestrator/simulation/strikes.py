"""A script of faults, played to a world: each begins at its moment, and ends if it lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.nodes import ClusterName, JobName, NodeName
from orchestrator.simulation.controller import Controller
from orchestrator.simulation.machine import Fault, SimMachine
from orchestrator.simulation.plan import CONTROL_PLANE, Kind, Strike
from orchestrator.simulation.weather import Weather, make_fault
from orchestrator.simulation.world import World

LATE_MAX = 12.0  #: seconds by which reports come late; the core promises order within 15


@dataclass(eq=False)
class Strikes:
    """Plays the script of a plan."""

    world: World
    weather: Weather
    controller: Controller

    def begin(self) -> None:
        """Enter every fault of the script."""
        for number, strike in enumerate(self.world.plan.strikes):
            self.world.agenda.at(strike.at, self._player(number, strike))

    def _player(self, number: int, strike: Strike) -> Callable[[], None]:
        def play() -> None:
            end = self._play(number, strike)
            if end is not None:
                self.world.agenda.after(strike.lasts, end)

        return play

    def _play(self, number: int, strike: Strike) -> Callable[[], None] | None:
        """Begin one fault; return how it ends, if it ends by itself after it has lasted."""
        if strike.kind in CONTROL_PLANE:
            return self._control_plane(number, strike)
        match strike.kind:
            case Kind.CHECKPOINT:
                self._damage(JobName(strike.target))
                return None
            case Kind.SHARED:
                return self._shared(number, strike)
            case Kind.BLACKOUT:
                return self._blackout(ClusterName(strike.target))
            case Kind.HANG:
                self._note(NodeName(strike.target), strike.kind)
                self.world.hang(NodeName(strike.target))
                return None
            case _:
                return self._befall(number, strike, NodeName(strike.target))

    # --- nodes ------------------------------------------------------------------------------------

    def _befall(self, number: int, strike: Strike, node: NodeName) -> Callable[[], None] | None:
        machine = self.world.machines[node]
        if machine.faults or machine.repairing or not machine.on:
            return None
        fault = make_fault(self.world, strike.kind, self.world.dice.of(f"strike {number}"))
        self._note(node, strike.kind)
        if strike.end_at is not None:
            fault.until = strike.end_at
            self.world.agenda.at(strike.end_at, lambda: self.world.heal(node, fault))
        if strike.kind is Kind.PROBE:
            fault.seen_from = self.world.now
        self.world.befall(node, fault)
        if strike.kind in (Kind.LINK, Kind.PROBE) and strike.end_at is None:
            return lambda: self.world.heal(node, fault)
        return None

    def _note(self, node: NodeName, kind: Kind) -> None:
        self.weather.note(self.world.machines[node], kind)

    def _damage(self, job: JobName) -> None:
        register = self.world.registers[job]
        head = register.lineage.head
        if head is not None:
            register.damaged.add(head.seq)

    def _shared(self, number: int, strike: Strike) -> Callable[[], None] | None:
        nodes = [NodeName(name) for name in strike.nodes]
        if strike.how == "power":
            for node in nodes:
                self._befall(number, Strike(strike.at, Kind.CRASH, node), node)
            return None
        if strike.how == "split":
            return self._split(frozenset(nodes))
        ends = [self._befall(number, Strike(strike.at, Kind.LINK, node), node) for node in nodes]

        def end_all() -> None:
            for end in ends:
                if end is not None:
                    end()

        return end_all

    def _split(self, nodes: frozenset[NodeName]) -> Callable[[], None]:
        self.world.splits.append(nodes)
        self._network(nodes)

        def end() -> None:
            self.world.splits.remove(nodes)
            self._network(nodes)

        return end

    def _network(self, nodes: frozenset[NodeName]) -> None:
        for node in sorted(nodes):
            self.world.saw(node)
        for gang in list(self.world.gangs.values()):
            gang.network_changed()

    def _blackout(self, cluster: ClusterName) -> Callable[[], None]:
        """Cut every node of a cluster off, and its provider's API with them."""
        faults: list[tuple[SimMachine, Fault]] = []
        for node in self.world.clusters[cluster]:
            fault = Fault(Kind.LINK, self.world.now)
            faults.append((self.world.machines[node], fault))
            self._note(node, Kind.LINK)
            self.world.befall(node, fault)
        end_api = self._ail(cluster, "timeout")

        def end() -> None:
            for machine, fault in faults:
                self.world.heal(machine.node, fault)
            end_api()

        return end

    # --- the control plane ------------------------------------------------------------------------

    def _control_plane(self, number: int, strike: Strike) -> Callable[[], None] | None:
        match strike.kind:
            case Kind.API:
                return self._ail(ClusterName(strike.target), strike.how)
            case Kind.PARTITION:
                return self._deafen(strike)
            case Kind.REGISTER:
                return self._close(JobName(strike.target))
            case Kind.REPORTS:
                return self._delay(number)
            case Kind.CLOCK:
                return self._skew(strike)
            case _:
                return self._kill(strike)

    def _ail(self, cluster: ClusterName, how: str) -> Callable[[], None]:
        ails = self.world.api.setdefault(cluster, [])
        ails.append(how)
        self.world.touch_listing(cluster)

        def end() -> None:
            ails.remove(how)
            self.world.touch_listing(cluster)

        return end

    def _deafen(self, strike: Strike) -> Callable[[], None]:
        """Cut nodes off from the controller, or from the registers; they hear each other."""
        names = [NodeName(name) for name in strike.nodes]

        def turn(by: int) -> None:
            for name in names:
                machine = self.world.machines[name]
                if strike.how == "register":
                    machine.unregistered += by
                else:
                    machine.deaf += by
                    self.world.touch_node(name)
            for gang in list(self.world.gangs.values()):
                gang.network_changed()

        turn(1)
        return lambda: turn(-1)

    def _close(self, job: JobName) -> Callable[[], None]:
        def turn(by: int) -> None:
            self.world.registers[job].down += by
            self.world.touch_register(job)
            for run, gang in list(self.world.gangs.items()):
                if run[0] == job:
                    gang.register_changed()

        turn(1)
        return lambda: turn(-1)

    def _delay(self, number: int) -> Callable[[], None]:
        """Let what the controller sees come late, doubled, out of order."""
        dice = self.world.dice.of(f"strike {number}")
        self.controller.delayed = lambda: dice.uniform(0.0, LATE_MAX)
        self.controller.doubled = lambda: dice.random() < 0.3

        def end() -> None:
            self.controller.delayed = self.controller.doubled = None

        return end

    def _skew(self, strike: Strike) -> Callable[[], None]:
        """Let a clock be wrong: the controller's, or a node's."""
        seconds = float(strike.how)

        def turn(by: float) -> None:
            if strike.target == "controller":
                self.controller.clock.skew += by
            else:
                self.world.machines[NodeName(strike.target)].skew += by

        turn(seconds)
        return lambda: turn(-seconds)

    def _kill(self, strike: Strike) -> Callable[[], None] | None:
        """Kill the controller now, or at a write from now on; it is started again later."""
        controller = self.controller
        if not controller.alive:
            return None
        if strike.number:
            controller.ledger.die_at = controller.ledger.writes + strike.number
            controller.ledger.die_before = strike.how == "before"
        else:
            controller.kill()

        def again() -> None:
            controller.ledger.die_at = 0
            if not controller.alive:
                controller.start()

        return again
