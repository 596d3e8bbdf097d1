"""NVIDIA GPUs as the PCI bus shows them: they are there even when the driver is not.

NVML numbers GPUs in the order of their PCI addresses, so the same order gives "gpu5" from a kernel
line that names only an address, without loading a library.
"""

from __future__ import annotations

from pathlib import Path

NVIDIA = "0x10de"
DISPLAY = ("0x0300", "0x0302")  #: VGA and 3D controllers; NVSwitches are 0x0680


def gpus(root: str = "/") -> list[str]:
    """Return the addresses of all NVIDIA GPUs on the bus, in NVML's order."""
    devices = Path(root, "sys/bus/pci/devices")
    if not devices.is_dir():
        return []
    return sorted(normal(one.name) for one in devices.iterdir() if _is_gpu(one))


def normal(address: str) -> str:
    """Write an address the one way: `0000:9b:00` for `PCI:0000:9B:00.0` and `00000000:9B:00.0`."""
    domain, bus, device = address.removeprefix("PCI:").lower().split(":")
    return f"{int(domain, 16):04x}:{bus}:{device.split('.')[0]}"


def _is_gpu(device: Path) -> bool:
    try:
        vendor = (device / "vendor").read_text().strip()
        return vendor == NVIDIA and (device / "class").read_text().startswith(DISPLAY)
    except OSError:  # gone between the listing and the look
        return False
