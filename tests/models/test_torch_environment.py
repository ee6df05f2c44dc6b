import gc
import sys
import weakref


class Cyclic:
    def __init__(self) -> None:
        self.myself = self


def test_the_libraries_are_there_and_no_longer_looked_through() -> None:
    """tests/conftest.py has imported them, as the server and the workers do."""
    assert {"torch", "transformers"} <= set(sys.modules)
    assert gc.get_freeze_count() > 100_000


def test_what_is_made_afterwards_is_still_collected() -> None:
    assert gc.isenabled()
    gone = weakref.ref(Cyclic())
    gc.collect()
    assert gone() is None
