"""Control characters of foreign text, made visible: whatever drives a terminal becomes an escape.

Emoji stay whole: the joiners and variation selectors that they are made of drive nothing.
"""

import re

# C0 but the tab and the line feed, DEL and C1; separators of lines and paragraphs; what changes the
# direction of the text after it; lone surrogates, which is what Python makes of bytes that are no
# UTF-8.
_DRIVING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


def escape_control(text: str) -> str:
    r"""`text` for a terminal: an ESC is shown as `\x1b`."""
    return _DRIVING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def escape_control_json(text: str) -> str:
    r"""The same for JSON, whose value stays what it is: an ESC is `\u001b` there."""
    return _DRIVING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    r"""`text` where a line has a meaning, as in a table: its line feeds are shown as `\n`."""
    return text.replace("\n", r"\n")
