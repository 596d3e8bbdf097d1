"""The warm parent: a process that has imported what the job names, and forks ranks in milliseconds.

    python -m orchestrator.runtime.zygote

A child of the agent under the job's own interpreter. Its first message says what to preload; it
answers "warm", or "cold" with the reason, and ends. Then each "fork" makes one rank: a child in
a session of its own that runs the job's script as `__main__`, as the interpreter would have. The
end of each is told with its wait status.

A parent that ran a multi-threaded tensor operation hangs every child it forks (the pool's threads
do not exist there). So it imports with OMP_NUM_THREADS=1, watches its number of threads and the
operations that an import runs, checks that no accelerator was initialised, and refuses to be warm
if in doubt. It forks from its main thread only: PR_SET_PDEATHSIG follows the thread that forked.

Standard library only (what the job preloads aside), Python 3.10.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.runtime import kernel, packets

VARIABLE = "HOLDFAST_ZYGOTE_FD"
#: what importing a name brings later, at a bad moment: torch.optim imports torch._dynamo (0.7 s)
HIDDEN: Mapping[str, tuple[str, ...]] = {
    "torch": (
        *("torch.distributed", "torch.nn.parallel", "torch._dynamo"),
        *("xxhash", "orchestrator.runtime.steady", "orchestrator.runtime.training"),
    ),
}
#: operations that torch spreads over threads whatever their size, and elements from which any is
HEAVY = ("mm", "bmm", "addmm", "baddbmm", "convolution", "linalg", "lstm", "attention")
ELEMENTS_MAX = 32_768  #: torch's grain size


class ColdError(Exception):
    """Why this parent must not fork anything."""


def threads() -> int:
    """Return the number of this process's threads."""
    return sum(1 for _ in os.scandir("/proc/self/task"))


# ---- preloading ----------------------------------------------------------------------------------


def preload(names: Sequence[str], tell: Callable[[str], None]) -> None:
    """Import each name; raises `ColdError` naming the module that makes forking unsafe.

    `tell` hears each name before it is imported: what raises or crashes is named by the last one.
    """
    with suppress(ImportError):
        importlib.import_module("torch")
    bare = threads()  # after a bare `import torch`, where there is a torch
    for name in names:
        tell(name)
        with _watched(name):
            importlib.import_module(name)
            for hidden in HIDDEN.get(name, ()):
                with suppress(ImportError):
                    importlib.import_module(hidden)
        _check(name, bare)


def _check(name: str, bare: int) -> None:
    now = threads()
    if now != bare:
        raise ColdError(f"importing {name} started {now - bare} threads, which no child would have")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise ColdError(f"importing {name} initialised CUDA, which no child could use")


@contextmanager
def _watched(name: str) -> Iterator[None]:
    """Refuse an import that runs tensor operations which torch would spread over threads."""
    if "torch" not in sys.modules:
        yield
        return
    dispatch = importlib.import_module("torch.utils._python_dispatch")
    seen: list[str] = []

    class Watch(dispatch.TorchDispatchMode):  # type: ignore[misc,name-defined]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if _is_heavy(str(func), result):
                seen.append(str(func))
            return result

    with Watch():
        yield
    if seen:
        raise ColdError(f"importing {name} ran tensor operations ({', '.join(sorted(set(seen)))})")


def _is_heavy(operation: str, result: Any) -> bool:
    words = operation.split(".")
    if len(words) > 1 and any(word in words[1] for word in HEAVY):
        return True
    size = getattr(result, "numel", None)
    return callable(size) and size() >= ELEMENTS_MAX


# ---- one rank ------------------------------------------------------------------------------------


def become_rank(order: Mapping[str, Any], control: int | None, parent: int) -> None:
    """Turn this freshly forked child into a rank, up to the point where its script begins."""
    os.setsid()
    kernel.die_with(parent)
    kernel.allow_tracing()
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    nowhere = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for descriptor, target in ((nowhere, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.close(nowhere)
    os.close(log)
    os.environ.clear()
    os.environ.update(order["env"])
    if control is not None:
        os.environ[packets.VARIABLE] = str(control)
    kernel.show_environment(os.environ)
    os.chdir(order["workdir"])
    _unseed()
    _set_threads()


def _unseed() -> None:
    """Give numpy dice of this child's own: all children would throw the parent's."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _set_threads() -> None:
    """Use as many threads as this rank's environment says, not as the parent's import did."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(wanted) if wanted.isdecimal() else len(os.sched_getaffinity(0)))


def run_main(argv: Sequence[str]) -> None:
    """Run [script.py, ...] or ["-m", module, ...] as `__main__`, as the interpreter would."""
    if argv[0] == "-m":
        sys.argv = list(argv[1:])
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(argv)
        runpy.run_path(argv[0], run_name="__main__")


def set_path(argv: Sequence[str], workdir: str) -> None:
    """Make the first entry of the import path what it would be for this command."""
    script = Path(workdir, argv[0]).resolve()
    sys.path[0] = workdir if argv[0] == "-m" else str(script.parent)


# ---- the parent ----------------------------------------------------------------------------------


class Zygote:
    """The parent's loop: orders in, births and deaths out."""

    def __init__(self, line: socket.socket) -> None:
        """Serve the agent at the other end of `line`."""
        self._line = line
        self._wake, self._rung = socket.socketpair()
        for end in (self._wake, self._rung):
            end.setblocking(False)
        signal.set_wakeup_fd(self._rung.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self) -> Sequence[str] | None:
        """Work until the agent is gone: None. In a forked child: what it has to run."""
        while True:
            ready, _, _ = select.select([self._line, self._wake], [], [])
            if self._wake in ready:
                with suppress(BlockingIOError):
                    self._wake.recv(4_096)
                self._reap()
            if self._line in ready:
                order, descriptors = packets.receive(self._line)
                if order is None:
                    return None
                child = self._fork(order, descriptors[0] if descriptors else None)
                if child is not None:
                    return child

    def _fork(self, order: Mapping[str, Any], control: int | None) -> Sequence[str] | None:
        """Fork one rank; returns what to run, in the child alone."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for end in (self._line, self._wake, self._rung):
                end.close()
            become_rank(order, control, parent)
            argv: Sequence[str] = order["argv"]
            return argv
        if control is not None:
            os.close(control)
        packets.send(self._line, {"forked": order["number"], "pid": pid})
        return None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            packets.send(self._line, {"ended": pid, "code": code})


def main() -> None:
    """Preload, say how it went, and fork for as long as the agent wants."""
    line = socket.socket(fileno=int(os.environ.pop(VARIABLE)))
    line.set_inheritable(False)
    asked, _ = packets.receive(line)
    if asked is None:
        return
    set_path(asked["argv"], asked["workdir"])
    os.chdir(asked["workdir"])
    try:
        preload(asked["preload"], lambda name: packets.send(line, {"importing": name}))
    except ColdError as error:
        packets.send(line, {"cold": str(error)})
        return
    gc.collect()
    gc.freeze()  # or the children's collections would copy every page
    packets.send(line, {"warm": asked["preload"], "threads": threads()})
    try:
        argv = Zygote(line).serve()
    except (BrokenPipeError, ConnectionResetError):  # the agent is gone
        return
    if argv is not None:
        run_main(argv)


if __name__ == "__main__":
    main()
