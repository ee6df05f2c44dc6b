"""Escapes for control characters, so that foreign text cannot drive a terminal.

Emoji stay intact: the joiners and variation selectors in them control nothing.
"""

import re

# C0 except tab and line feed, DEL and C1; line and paragraph separators; changes of text direction;
# lone surrogates, which stand for bytes that are not UTF-8.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


def escape_control(text: str) -> str:
    r"""Escape `text` for a terminal: ESC becomes `\x1b`."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escape_control_json(text: str) -> str:
    r"""Escape JSON without changing its value: ESC becomes `\u001b`."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    r"""Write `text` on one line: line feeds become `\n`."""
    return text.replace("\n", r"\n")
