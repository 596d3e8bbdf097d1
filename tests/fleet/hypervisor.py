"""A rack of real hosts on one computer: each has its own processes, network card and sshd.

A host is a set of namespaces (network, mount, pid, uts, ipc) whose first process is sshd; killing
that process is a loss of power. Cards hang on one bridge, whose ports can be cut, unplugged or
slowed. All of it lives in namespaces of the process that runs this, so nothing outlives it.

    python -m tests.fleet.hypervisor FOLDER COUNT

listens on FOLDER/socket for lines "VERB HOST [ARG]" and answers "ok TEXT" or "error TEXT". Hosts
are started from its main thread: they die with it, and the kernel asks for that thread.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.transports.sshd import make_key

NETWORK = "10.77.0"
GATEWAY = f"{NETWORK}.254"
READY_LIMIT = 30.0
DISK = "48m"  #: size of each host's own disk (/mnt)

SSHD = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/../authorized
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
UseDNS no
PidFile none
MaxStartups 200:30:400
Subsystem sftp internal-sftp
"""

#: First process of a host, in its new namespaces; waits until its card is there.
INIT = """
set -e
folder=$1 name=$2 address=$3
hostname "$name"
mount -t tmpfs -o size={disk},mode=700 disk /mnt
: > /mnt/kernel.log
: > /mnt/bashrc
if [ -e ~/.bashrc ]; then mount --bind /mnt/bashrc ~/.bashrc; fi
mount -t tmpfs run /run
mkdir -p /run/sshd
mount --bind "$folder/boot_id" /proc/sys/kernel/random/boot_id
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
exec {sshd} -D -E "$folder/sshd.log" -f "$folder/sshd_config"
"""


@dataclass
class Host:
    """One host of the rack."""

    number: int
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    lost: bool = False  #: nobody can switch it on any more

    @property
    def name(self) -> str:
        return f"rack-{self.number:03d}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def card(self) -> str:
        return f"v{self.number}"


class Hypervisor:
    """All hosts, and what can happen to them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.broken = folder, False
        self.hosts = {
            host.name: host
            for host in (Host(n, folder / f"rack-{n:03d}") for n in range(1, count + 1))
        }
        self.verbs: dict[str, Callable[[Host, str], str]] = {
            "status": self.status,
            "lose": self.lose,
            "board": self.board,
            "kill": self.kill,
            "start": self.start,
            "cycle": self.cycle,
            "cut": lambda host, _: self.port(host, "0"),
            "unplug": lambda host, _: self.ip("link", "set", host.card, "down"),
            "heal": self.heal,
            "hang": lambda host, _: self.signal(host, signal.SIGSTOP),
            "thaw": lambda host, _: self.signal(host, signal.SIGCONT),
            "slow": self.slow,
            "fill": self.fill,
            "write": self.write,
        }

    def build(self) -> None:
        """Make the bridge and start every host."""
        self.folder.mkdir(parents=True, exist_ok=True)
        public = make_key(self.folder / "id")
        (self.folder / "authorized").write_text(public + "\n")
        (self.folder / "init.sh").write_text(INIT.format(disk=DISK, sshd=shutil.which("sshd")))
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", "br0", "type", "bridge")
        self.ip("addr", "add", f"{GATEWAY}/24", "dev", "br0")
        self.ip("link", "set", "br0", "up")
        for host in self.hosts.values():
            host.folder.mkdir()
            make_key(host.folder / "host_key")
            (host.folder / "sshd_config").write_text(SSHD.format(folder=host.folder))
            self.start(host, "", wait=False)
        for host in self.hosts.values():
            self.await_ready(host)

    def start(self, host: Host, how: str, *, wait: bool = True) -> str:
        """Give a host its power; with `newkey` it comes back as another machine."""
        assert how == "restore" or not host.lost, f"{host.name} is lost for good"
        if host.process is not None:
            return "it has power"
        if how == "newkey":
            make_key(host.folder / "host_key")
        (host.folder / "boot_id").write_text(secrets.token_hex(8) + "\n")
        host.process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid"),
                *("--uts", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc", "sh"),
                *(str(self.folder / "init.sh"), str(host.folder), host.name, host.address),
            ],
            stdin=subprocess.DEVNULL,
            stdout=(host.folder / "init.log").open("ab"),
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": str(Path.home())},
        )
        inner = self.inner(host)
        mac = f"02:4d:00:00:00:{host.number:02x}"  # or neighbours would keep a stale entry
        peer = ("peer", "name", "eth0", "address", mac, "netns", inner)
        self.ip("link", "add", host.card, "type", "veth", *peer)
        self.ip("link", "set", host.card, "master", "br0", "up")
        if wait:
            self.await_ready(host)
        return "started"

    def inner(self, host: Host) -> str:
        """Return the pid, out here, of a host's first process."""
        assert host.process is not None
        children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children")
        end = time.monotonic() + READY_LIMIT
        while time.monotonic() < end:
            found = children.read_text().split()
            if (
                found
                and Path(f"/proc/{found[0]}/ns/net").readlink()
                != Path("/proc/self/ns/net").readlink()
            ):
                return found[0]
            time.sleep(0.005)
        raise AssertionError(f"{host.name} did not start: {self.log(host)}")

    def await_ready(self, host: Host) -> None:
        end = time.monotonic() + READY_LIMIT
        while True:
            try:
                with socket.create_connection((host.address, 22), 1) as one:
                    if one.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            assert time.monotonic() < end, f"{host.name} is not ready: {self.log(host)}"
            time.sleep(0.02)

    def kill(self, host: Host, _: str) -> str:
        """Take a host's power: the kernel kills all of it at once."""
        if host.process is None:
            return "it has no power"
        os.kill(int(self.inner(host)), signal.SIGKILL)
        host.process.kill()
        host.process.wait()
        host.process = None
        subprocess.run(["ip", "link", "del", host.card], stderr=subprocess.DEVNULL, check=False)
        return "killed"

    def lose(self, host: Host, _: str) -> str:
        host.lost = True
        return self.kill(host, "")

    def board(self, host: Host, how: str) -> str:
        """Let the boards of all hosts fail (`broken`), or answer again."""
        del host
        self.broken = how == "broken"
        return how

    def status(self, host: Host, _: str) -> str:
        assert not self.broken, "Unable to establish IPMI v2 / RMCP+ session"
        return "on" if host.process else "off"

    def cycle(self, host: Host, how: str) -> str:
        self.kill(host, "")
        return self.start(host, how, wait=False)

    def heal(self, host: Host, _: str) -> str:
        self.ip("link", "set", host.card, "up")
        subprocess.run(
            ["tc", "qdisc", "del", "dev", host.card, "root"],
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return self.port(host, "3")

    def port(self, host: Host, state: str) -> str:
        run("bridge", "link", "set", "dev", host.card, "state", state)
        return state

    def slow(self, host: Host, rate: str) -> str:
        """Let a host hear no faster than a rate such as 256kbit."""
        run(*["tc", "qdisc", "replace", "dev"], host.card, *f"root tbf rate {rate}".split(),
            *["burst", "16kbit", "latency", "400ms"])  # fmt: skip
        return rate

    def fill(self, host: Host, what: str) -> str:
        """Fill a host's disk to the last byte, or (`empty`) free it again."""
        path = Path(f"/proc/{self.inner(host)}/root/mnt/filler")
        if what == "empty":
            path.unlink(missing_ok=True)
            return "emptied"
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65_536))
            except OSError:
                return "full"

    def write(self, host: Host, line: str) -> str:
        """Let a host's kernel say something."""
        with Path(f"/proc/{self.inner(host)}/root/mnt/kernel.log").open("a") as log:
            log.write(line + "\n")
        return "written"

    def signal(self, host: Host, number: signal.Signals) -> str:
        """Stop or continue every process of a host, until nobody was missed."""
        home = Path(f"/proc/{self.inner(host)}/ns/pid").readlink()
        for _ in range(3):
            for entry in os.scandir("/proc"):
                try:
                    if entry.name.isdigit() and Path(entry.path, "ns/pid").readlink() == home:
                        os.kill(int(entry.name), number)
                except OSError:
                    continue
        return number.name

    def ip(self, *words: str) -> str:
        run("ip", *words)
        return "done"

    def log(self, host: Host) -> str:
        logs = [host.folder / "init.log", host.folder / "sshd.log"]
        return "\n".join(one.read_text(errors="replace")[-500:] for one in logs if one.exists())

    def serve(self) -> None:
        """Answer until the folder's socket is closed by our death."""
        path = self.folder / "socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(64)
            print("ready", flush=True)
            while True:
                connection, _ = listener.accept()
                with connection, connection.makefile("rw") as line:
                    line.write(self.answer(line.readline()) + "\n")
                    line.flush()

    def answer(self, asked: str) -> str:
        verb, _, rest = asked.strip().partition(" ")
        name, _, argument = rest.partition(" ")
        host = self.hosts.get(name)
        if host is None or verb not in self.verbs:
            return f"error no such verb or host: {asked.strip()!r}"
        try:
            return f"ok {self.verbs[verb](host, argument)}"
        except (OSError, AssertionError, subprocess.SubprocessError) as error:
            return f"error {' '.join(str(error).split())}"


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


def ask(folder: Path, verb: str, host: str, argument: str = "") -> str:
    """Ask a running hypervisor; raises `AssertionError` with its words if it refuses."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(folder / "socket"))
        with connection.makefile("rw") as line:
            line.write(f"{verb} {host} {argument}".rstrip() + "\n")
            line.flush()
            word, _, text = line.readline().strip().partition(" ")
    assert word == "ok", text
    return text


if __name__ == "__main__":
    if sys.argv[1] == "--ask":  # a board controller's command line: --ask FOLDER VERB HOST
        print("Chassis Power is", ask(Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
    else:
        hypervisor = Hypervisor(Path(sys.argv[1]), int(sys.argv[2]))
        hypervisor.build()
        hypervisor.serve()
