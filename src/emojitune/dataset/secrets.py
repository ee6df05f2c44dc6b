"""Keys and addresses that have no business in a training file: found by their form, never shown."""

import re

_SECRETS = {
    "an API key": r"\bsk-(?=[\w-]*\d)[\w-]{20,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,})",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a Google API key": r"\bAIza[\w-]{35}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a Slack token": r"\bxox[abprs]-[\w-]{10,}",
    "a JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    r"(?:[\sA-Za-z0-9+/=]*-----END (?:[A-Z]+ )*PRIVATE KEY-----)?",
}
_KINDS = tuple(_SECRETS)
_SECRET = re.compile("|".join(f"({pattern})" for pattern in _SECRETS.values()))

# The bounds keep a long text without a blank from being looked at again at every character.
_ADDRESS = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@((?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24})(?!\w)")
_NOBODYS = re.compile(r"(?:.*\.)?(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost)")


def find_secrets(text: str) -> tuple[str, ...]:
    """The kinds of secrets in `text`, each once, in the order of their kinds."""
    found = {match.lastindex for match in _SECRET.finditer(text)}
    return tuple(_KINDS[number - 1] for number in sorted(n for n in found if n))


def has_email_address(text: str) -> bool:
    """Whether an e-mail address that may be somebody's is in `text`."""
    return "@" in text and any(map(_somebodys, _ADDRESS.finditer(text)))


def redact(text: str) -> str:
    """`text` with a placeholder for each secret and each address."""
    text = _SECRET.sub("[secret]", text)
    if "@" not in text:
        return text
    return _ADDRESS.sub(lambda m: "[e-mail address]" if _somebodys(m) else m[0], text)


def _somebodys(address: re.Match[str]) -> bool:
    # git@host is how repositories are addressed.
    return not _NOBODYS.fullmatch(address[1].lower()) and not address[0].startswith("git@")
