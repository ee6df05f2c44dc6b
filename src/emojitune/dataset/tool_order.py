"""The order of tool calls and their results in a conversation: which calls have no result yet.

Training files, chats and responses all keep to it, each in the words of its own messages.
"""


class PendingCalls:
    """The tool calls of a conversation that results may answer, by their ids."""

    def __init__(self) -> None:
        self._made: set[str] = set()
        self._unanswered: dict[str, str] = {}

    def add(self, call_id: str, place: str = "") -> None:
        """Add a call that waits for its result; `place` says where in the conversation it is."""
        self._made.add(call_id)
        self._unanswered[call_id] = place

    def answer(self, call_id: object) -> bool:
        """Take the result of a call; False if no such call was made. A second result is fine."""
        if not (isinstance(call_id, str) and call_id in self._made):
            return False
        self._unanswered.pop(call_id, None)
        return True

    def close(self) -> dict[str, str]:
        """End the round: forget all calls; return the unanswered ones with their places."""
        unanswered = self._unanswered
        self._made, self._unanswered = set(), {}
        return unanswered
