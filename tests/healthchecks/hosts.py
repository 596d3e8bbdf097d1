"""A healthy host as files: what its proc and sys would say."""

from __future__ import annotations

from pathlib import Path

HEALTHY = {
    "proc/self/mounts": "/dev/sda1 / ext4 rw 0 0\n",
    "proc/self/limits": (
        "Max locked memory  unlimited unlimited bytes\nMax open files  1048576 1048576 files\n"
    ),
    "proc/meminfo": "MemTotal:  2113456789 kB\nHugePages_Total:   0\n",
    "proc/sys/fs/file-nr": "12000\t0\t9223372036854775807\n",
    "proc/7/stat": "7 (a b) S " + "0 " * 40 + "\n",
    "sys/devices/system/edac/mc/mc0/ue_count": "0\n",
    "sys/devices/system/edac/mc/mc0/ce_count": "2\n",
    "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
    "sys/class/infiniband/mlx5_0/ports/1/phys_state": "5: LinkUp\n",
    "sys/class/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)\n",
    "sys/class/infiniband/mlx5_0/ports/1/counters/link_downed": "0\n",
    "sys/class/infiniband/mlx5_0/ports/1/counters/symbol_error": "0\n",
}


def healthy(root: Path) -> Path:
    """Write a healthy host into a folder; its kernel log is `kernel.log`."""
    for name, text in HEALTHY.items():
        write(root, name, text)
    write(root, "kernel.log", "[1.0] Linux version 6.1\n")
    return root


def write(root: Path, name: str, text: str) -> None:
    """Write one file of the host."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
