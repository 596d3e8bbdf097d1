"""Programs that start again for each sweep, over ssh's own shared connections: clush, ansible."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.sweep.client import serve
from bench.sweep.hosts import Sweep, read


def main() -> None:
    """Serve sweeps with the program whose path is the second word."""
    told, program = read(sys.argv[1]), Path(sys.argv[2])
    folder = Path(tempfile.mkdtemp(prefix="hf-mux-", dir="/tmp"))  # a socket's path is short
    options = [
        f"-i {told.key}",
        f"-o UserKnownHostsFile={told.known_hosts}",
        "-o StrictHostKeyChecking=yes",
        "-o ControlMaster=auto",
        "-o ControlPersist=600",
        f"-o ControlPath={folder}/%C",
        "-F none",
    ]
    make = {"clush": clush, "ansible": ansible}[program.name]
    argv = make(program, told, options, folder)
    names = {address: name for name, address in told.hosts.items()}

    def sweep() -> dict[str, float]:
        began, answered = time.perf_counter(), {}
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as running:
            assert running.stdout is not None
            for line in running.stdout:  # "ADDRESS: output", "ADDRESS | CHANGED | rc=0 | ..."
                name = names.get(line.split(" ", 1)[0].rstrip(":"))
                if name is not None and "UNREACHABLE" not in line and "FAILED" not in line:
                    answered[name] = time.perf_counter() - began
        return answered

    serve(sweep)


def clush(program: Path, told: Sweep, options: list[str], folder: Path) -> list[str]:
    """Return clush's command line."""
    del folder
    return [
        *(str(program), "-l", told.user, "-f", str(told.width), "-u", f"{told.limit:g}"),
        *("-o", " ".join(options).replace("%", "%%"), "-w", ",".join(told.hosts.values())),
        *("-L", told.line),
    ]


def ansible(program: Path, told: Sweep, options: list[str], folder: Path) -> list[str]:
    """Return ansible's command line: the raw module, which starts no Python over there."""
    inventory = folder / "hosts"
    inventory.write_text("".join(f"{address}\n" for address in told.hosts.values()))
    return [
        *(str(program), "all", "-i", str(inventory), "-u", told.user, "-f", str(told.width)),
        *("-m", "raw", "-a", told.line, "-o", "-T", f"{told.limit:g}"),
        f"--ssh-common-args={' '.join(options)}",
    ]


if __name__ == "__main__":
    main()
