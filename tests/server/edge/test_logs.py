import logging
import sys

import pytest

from emojitune.server.edge.logs import stderr_logged


def test_a_progress_bar_is_one_line_of_its_last_state(caplog: pytest.LogCaptureFixture) -> None:
    with stderr_logged(), caplog.at_level(logging.WARNING, "stderr"):
        for percent in range(101):
            sys.stderr.write(f"\rLoading: {percent}%")
        sys.stderr.write("\n")
        sys.stderr.write("a line\r")
        sys.stderr.write("\n")
    assert [message.strip() for message in caplog.messages] == ["Loading: 100%", "a line"]
