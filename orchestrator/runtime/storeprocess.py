"""The store process: holds each generation's torch TCPStore. Signatures first."""

from __future__ import annotations

from typing import Optional


class StoreProcess:
    def __init__(self, python: Optional[str], host: str) -> None:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def fresh(self, timeout: float) -> Optional[int]:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError
