from tests.system.conftest import make_fleet

__all__ = ["make_fleet"]
