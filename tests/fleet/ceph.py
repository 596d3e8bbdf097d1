"""A real Ceph with its S3 gateway, small enough for a test: one monitor, manager, OSD, gateway.

Runs as plain processes of one folder, without systemd or containers. The OSD keeps its objects in
memory: what is tested is the gateway's semantics, not a disk.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "ceph", "monmaptool", "ceph-authtool")
UP_LIMIT = 120.0  #: seconds


def missing() -> str | None:
    """Say which program is not installed, or None."""
    lacks = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"Ceph is not installed here ({', '.join(lacks)})" if lacks else None


@dataclass
class Ceph:
    """One cluster in one folder."""

    folder: Path
    address: str = "127.0.0.1"
    access: str = field(default_factory=lambda: secrets.token_hex(10).upper())
    secret: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    gateway_port: int = 0
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.gateway_port}"

    def start(self) -> None:
        """Start everything; raises `AssertionError` with what Ceph said."""
        monitor_port, self.gateway_port = free_port(self.address), free_port(self.address)
        for name in ("mon", "mgr", "osd", "rgw", "run", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._configure(monitor_port)
        self._keys()
        fsid = str(uuid.uuid4())
        where = f"[v1:{self.address}:{monitor_port}]"
        monmap = self.folder / "monmap"
        self._do("monmaptool", "--create", "--fsid", fsid, "--addv", "a", where, monmap)
        ring = self.folder / "keyring"
        self._do("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", ring)
        self._spawn("ceph-mon", "-i", "a")
        self._grant(
            "mgr.x", self.folder / "mgr/keyring", "mon", "allow profile mgr", "osd", "allow *"
        )
        self._spawn("ceph-mgr", "-i", "x")
        self._start_osd()
        self._grant(
            "client.rgw.a", self.folder / "rgw/keyring", "mon", "allow rw", "osd", "allow rwx"
        )
        self._spawn("radosgw", "-n", "client.rgw.a")
        self._await_gateway()
        self._do(
            "radosgw-admin", "user", "create", "--uid=holdfast", "--display-name=holdfast",
            f"--access-key={self.access}", f"--secret-key={self.secret}",
        )  # fmt: skip

    def stop(self) -> None:
        """Kill what was started."""
        for process in reversed(self._processes):
            process.kill()
        for process in self._processes:
            process.wait()

    def freeze_osd(self, *, frozen: bool) -> None:
        """Let the OSD block without an error, as a Ceph does that lost too many disks."""
        number = signal.SIGSTOP if frozen else signal.SIGCONT
        for process in self._processes:
            if "ceph-osd" in str(process.args):
                process.send_signal(number)

    def _configure(self, monitor_port: int) -> None:
        folder = self.folder
        (folder / "ceph.conf").write_text(
            f"""
[global]
mon_host = v1:{self.address}:{monitor_port}/0
public_addr = {self.address}
cluster_addr = {self.address}
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
run_dir = {folder}/run
admin_socket = {folder}/run/$name.$pid.asok
log_file = {folder}/log/$name.log
crash_dir = {folder}/crash
ms_bind_msgr2 = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 500
mon_warn_on_pool_no_redundancy = false
mon_data_avail_warn = 2
mon_data_avail_crit = 1
[mon.a]
mon_data = {folder}/mon
[mgr.x]
mgr_data = {folder}/mgr
keyring = {folder}/mgr/keyring
mgr_initial_modules =
[osd]
osd_data = {folder}/osd
keyring = {folder}/osd/keyring
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_class_load_list = *
osd_class_default_list = *
[client.rgw.a]
rgw_frontends = beast endpoint={self.address}:{self.gateway_port}
rgw_data = {folder}/rgw
keyring = {folder}/rgw/keyring
rgw_thread_pool_size = 16
rgw_run_sync_thread = false
rgw_enable_usage_log = false
"""
        )

    def _keys(self) -> None:
        ring = self.folder / "keyring"
        all_of_it = [word for cap in ("mon", "osd", "mgr") for word in ("--cap", cap, "allow *")]
        self._do(
            "ceph-authtool",
            "--create-keyring",
            ring,
            "--gen-key",
            "-n",
            "mon.",
            "--cap",
            "mon",
            "allow *",
        )
        self._do("ceph-authtool", ring, "--gen-key", "-n", "client.admin", *all_of_it)

    def _start_osd(self) -> None:
        identity = str(uuid.uuid4())
        key = self._do("ceph-authtool", "--gen-print-key").strip()
        self._do("ceph", "osd", "new", identity, "-i", "-", said=f'{{"cephx_secret": "{key}"}}')
        ring = self.folder / "osd/keyring"
        self._do("ceph-authtool", "--create-keyring", ring, "-n", "osd.0", "--add-key", key)
        self._do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity, "--keyring", ring)
        self._do("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=h0")
        self._spawn("ceph-osd", "-i", "0")

    def _grant(self, name: str, ring: Path, *caps: str) -> None:
        self._do("ceph", "auth", "get-or-create", name, *caps, "-o", ring)

    def _await_gateway(self) -> None:
        end = time.monotonic() + UP_LIMIT
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection(self.address, self.gateway_port, timeout=5)
                with contextlib.closing(connection):
                    connection.request("GET", "/")
                    if connection.getresponse().status < 500:
                        return
            for process in self._processes:
                assert process.poll() is None, f"{process.args!r} ended: {self._log()}"
            time.sleep(0.2)
        raise AssertionError(f"the gateway did not answer in {UP_LIMIT} s: {self._log()}")

    def _log(self) -> str:
        logs = sorted((self.folder / "log").glob("*.log"))
        stderr = self.folder / "log" / "stderr"
        logs += [stderr] if stderr.exists() else []
        return "\n".join(f"{one.name}: {one.read_text(errors='replace')[-600:]}" for one in logs)

    def _do(self, *argv: object, said: str = "") -> str:
        done = subprocess.run(
            [str(word) for word in argv],
            input=said,
            capture_output=True,
            text=True,
            timeout=UP_LIMIT,
            env=self._env,
            check=False,
        )
        assert done.returncode == 0, f"{argv}: {done.stderr[-800:]}{self._log()[-2000:]}"
        return done.stdout

    def _spawn(self, *argv: str) -> None:
        with (self.folder / "log" / "stderr").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [*argv, "-f", "--setuser", "root", "--setgroup", "root"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._env,
                )
            )

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self.folder / "ceph.conf")}


def free_port(address: str) -> int:
    """Return a port that is free now."""
    with socket.create_server((address, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
