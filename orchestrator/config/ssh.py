"""The `ssh:` part of a cluster, and the inventory of machines that only we know of.

Everything in it ends up near a command line or a socket, so it is checked here, once: addresses
cannot begin with a hyphen, host keys must be keys, commands are lists of words.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.config.models import Strict
from orchestrator.config.scalars import Duration, Folder, Name, SecretRef, duration

ADDRESS = r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}"  #: a host name, IPv4 or IPv6 address
USER = r"[a-z_][a-z0-9_-]{0,31}"
KEY_TYPE = r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa)"


def a_list(value: Any) -> Any:
    """Let a YAML list stand where a model keeps a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _address(value: str) -> str:
    if not re.fullmatch(ADDRESS, value):
        raise ValueError(f"expected a host name or an IP address, got {value[:60]!r}")
    return value


def _user(value: str) -> str:
    if not re.fullmatch(USER, value):
        raise ValueError(f"expected the name of a user, got {value[:60]!r}")
    return value


def _host_key(value: str) -> str:
    """Check "TYPE BASE64 [comment]" as ssh-keyscan prints it behind the host's name."""
    kind, _, rest = value.strip().partition(" ")
    body = rest.partition(" ")[0]
    try:
        blob = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    named = len(kind).to_bytes(4, "big") + kind.encode(errors="replace")
    if not re.fullmatch(KEY_TYPE, kind) or not blob.startswith(named):
        raise ValueError(
            "expected a host key such as 'ssh-ed25519 AAAA...', "
            "as /etc/ssh/ssh_host_ed25519_key.pub of the node has it"
        )
    return f"{kind} {body}"


def _words(value: tuple[str, ...]) -> tuple[str, ...]:
    for word in value:
        if not word or "\0" in word or "\n" in word:
            raise ValueError(f"expected a list of words, got {word[:60]!r} in it")
    return value


def _absolute(value: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9._/+@-]{0,200}", value) or ".." in value.split("/"):
        raise ValueError(f"expected an absolute path of plain characters, got {value[:60]!r}")
    return value.rstrip("/") or "/"


Address = Annotated[str, AfterValidator(_address)]
User = Annotated[str, AfterValidator(_user)]
HostKey = Annotated[str, AfterValidator(_host_key)]
HostKeys = Annotated[tuple[HostKey, ...], BeforeValidator(a_list)]
Words = Annotated[
    tuple[str, ...], BeforeValidator(a_list), Field(min_length=1), AfterValidator(_words)
]
NodePath = Annotated[str, AfterValidator(_absolute)]
Port = Annotated[int, Field(ge=1, le=65535)]


class MachineSettings(Strict):
    """One machine of the inventory."""

    name: Name = Field(description="name of the node, once in the whole fleet")
    address: Address | None = Field(
        default=None, description="host name or IP address that sshd answers on; default: the name"
    )
    port: Port | None = Field(default=None, description="port of its sshd")
    cluster_address: Address | None = Field(
        default=None,
        description="IP address on the cluster's own network, where agents and ranks listen; "
        "default: `address`",
    )
    host_keys: HostKeys = Field(
        default=(), description="its public host keys; these and no others are accepted"
    )
    serials: Annotated[tuple[str, ...], BeforeValidator(a_list)] = Field(
        default=(), description="serial numbers of board and accelerators: who the machine is"
    )
    sku: str | None = Field(default=None, min_length=1, description="kind of machine")
    accelerators: int | None = Field(default=None, ge=0, le=64, description="per machine")
    cohort: str | None = Field(default=None, min_length=1, description="hand-over batch")
    price_per_hour: float | None = Field(default=None, ge=0, description="US dollars per hour")


class JumpSettings(Strict):
    """A host through which the nodes are reached."""

    address: Address = Field(description="host name or IP address")
    port: Port = Field(default=22, description="port of its sshd")
    user: User | None = Field(default=None, description="user there; default: as on the nodes")
    host_keys: HostKeys = Field(default=(), description="its public host keys")


class PowerSettings(Strict):
    """Commands of the controller's computer that see and switch a machine's power.

    `{node}` and `{address}` in a word are replaced; no shell is involved.
    """

    status: Words | None = Field(
        default=None,
        description="argv that prints a last word `on` or `off`, e.g. ipmitool's; "
        "`off` is proof that nothing runs there",
    )
    cycle: Words | None = Field(
        default=None, description="argv that switches the machine off and on again"
    )
    limit: Duration = Field(
        default=duration("8s"), description="duration after which either is ended"
    )


class SshSettings(Strict):
    """How the nodes of a cluster are reached by SSH."""

    user: User = Field(default="root", description="user on the nodes")
    port: Port = Field(default=22, description="port of sshd")
    key: Folder | None = Field(
        default=None, description="file of the private key; default: the keys of ssh-agent"
    )
    passphrase: SecretRef | None = Field(
        default=None, description="of the private key, by reference"
    )
    known_hosts: Folder | None = Field(
        default=None, description="file of pinned host keys, as OpenSSH writes it"
    )
    jump: JumpSettings | None = Field(
        default=None, description="host through which the nodes are reached"
    )
    folder: NodePath | None = Field(
        default=None,
        description="private folder on the nodes; default: .holdfast in the user's home",
    )
    python: str = Field(
        default="python3", min_length=1, description="interpreter on the nodes, 3.10 or newer"
    )
    connect_limit: Duration = Field(
        default=duration("10s"), description="duration a connection may take to be made"
    )
    direct: bool = Field(
        default=False,
        description="true: agents are asked on `cluster_address` directly, not through a tunnel",
    )
    reboot: Words | None = Field(
        default=None, description="argv that reboots a node, run on it, e.g. [sudo, reboot]"
    )
    power: PowerSettings = Field(
        default=PowerSettings(), description="out-of-band power, seen and switched from here"
    )

    @model_validator(mode="after")
    def _passphrase_of_a_key(self) -> Self:
        if self.passphrase is not None and self.key is None:
            raise ValueError("`passphrase` belongs to `key`; give both")
        return self

    @property
    def node_folder(self) -> Path:
        """Return the private folder on the nodes."""
        if self.folder is not None:
            return Path(self.folder)
        home = Path("/root") if self.user == "root" else Path("/home") / self.user
        return home / ".holdfast"
