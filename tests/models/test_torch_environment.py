import gc
import sys
import weakref


class Cyclic:
    def __init__(self) -> None:
        self.myself = self


def test_the_libraries_are_loaded_and_exempt_from_garbage_collection() -> None:
    """tests/conftest.py imports them, as the server and the workers do."""
    assert {"torch", "transformers"} <= set(sys.modules)
    assert gc.get_freeze_count() > 100_000


def test_later_objects_are_still_collected() -> None:
    assert gc.isenabled()
    gone = weakref.ref(Cyclic())
    gc.collect()
    assert gone() is None
