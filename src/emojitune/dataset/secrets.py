"""Secrets and e-mail addresses in text: recognized by their form, redacted, never shown."""

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

# Bounded, so that a long text without spaces is not scanned again from every character.
_EMAIL_ADDRESS = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@((?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24})(?!\w)"
)
_RESERVED_DOMAIN = re.compile(
    r"(?:.*\.)?(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost)"
)


def find_secrets(text: str) -> tuple[str, ...]:
    """The kinds of secrets in `text`, each once, in a fixed order."""
    groups = {match.lastindex for match in _SECRET.finditer(text)}
    return tuple(_KINDS[number - 1] for number in sorted(n for n in groups if n))


def has_email_address(text: str) -> bool:
    """Whether `text` has an e-mail address that may belong to a person."""
    return "@" in text and any(map(_is_personal, _EMAIL_ADDRESS.finditer(text)))


def redact(text: str) -> str:
    """Replace each secret and each personal e-mail address by a placeholder."""
    text = _SECRET.sub("[secret]", text)
    if "@" not in text:
        return text
    return _EMAIL_ADDRESS.sub(lambda m: "[e-mail address]" if _is_personal(m) else m[0], text)


def _is_personal(address: re.Match[str]) -> bool:
    # git@host names a repository.
    reserved = _RESERVED_DOMAIN.fullmatch(address[1].lower())
    return not reserved and not address[0].startswith("git@")
