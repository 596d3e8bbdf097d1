"""What a client of the bench is told: hosts, a login, one command."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sweep:
    """One command for many hosts."""

    hosts: dict[str, str]  #: name -> address; port 22
    host_keys: dict[str, str]  #: name -> public line
    user: str
    key: str
    known_hosts: str
    command: list[str]
    line: str  #: the same for a shell, with the limit over there that ours gives every command
    limit: float  #: seconds for one host
    width: int  #: hosts at once

    def write(self, path: Path) -> None:
        """Write it, and the known_hosts file that it names."""
        lines = [f"{self.hosts[name]} {key}\n" for name, key in self.host_keys.items()]
        Path(self.known_hosts).write_text("".join(lines))
        path.write_text(json.dumps(asdict(self)))


def read(path: str) -> Sweep:
    """Return what `write` wrote."""
    return Sweep(**json.loads(Path(path).read_text()))
