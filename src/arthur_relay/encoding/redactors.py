"""The built-in redactors: e-mail, phone, credit card, IP address, API keys and bearer tokens.

Each returns the text with its findings replaced by a marker; a text without findings is unchanged.
They go by form, so they can miss something. What only looks alike (a version, a date, an id) stays.
The time of each is linear in the text's length, even for malicious texts: repeats are bounded, or
nothing has to follow them. Pure; any thread.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from arthur_relay.settings.types import BuiltInRedactor

_Match = re.Match[str]

# Texts are often JSON or URLs: in `"call\n030 1234567"`, the `n` belongs to the line break. Only
# ASCII letters count, because Chinese and Japanese have no spaces around a number.
_ESCAPE = r"(?<=\\[bfnrt])"
_BEGINS = rf"(?:(?<![A-Za-z0-9_])|{_ESCAPE})"
_ENDS = r"(?![A-Za-z0-9_])"
_UUID = r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}"


def _marker(name: BuiltInRedactor) -> str:
    return f"[redacted: {name.value}]"


_EMAIL_MARKER = _marker(BuiltInRedactor.EMAIL)

# At most 64 characters before the sign and 63 in a label (RFC 5321, 4.5.3.1; RFC 1035, 2.3.4). The
# last label has no digit, which leaves package@1.2.3 alone.
_EMAIL = re.compile(r"\w[\w.+'&-]{0,63}+(?:@|%40)(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,63}")


def redact_email(text: str) -> str:
    """Redact e-mail addresses."""
    if "@" not in text and "%40" not in text:
        return text
    return _EMAIL.sub(_EMAIL_MARKER, text)


_CARD_MARKER = _marker(BuiltInRedactor.CREDIT_CARD)
_CARD_DIGITS = range(13, 20)  # Visa's shortest numbers have 13, ISO/IEC 7812-1 allows 19

_CARD_LIKE = re.compile(r"[0-9](?:[ \u00a0-]{0,3}[0-9]){12}")  # a fast check

# UUIDs and fractions are skipped, because one in ten of all numbers passes the checksum.
_DIGIT_GROUPS = re.compile(
    rf"{_UUID}|{_BEGINS}(?<![0-9]\.)"
    rf"(?P<groups>[0-9]++{_ENDS}(?:[ \u00a0-]{{1,3}}[0-9]++{_ENDS})*+)"
)
_GROUP = re.compile(r"[0-9]+")
_DOUBLED = str.maketrans("0123456789", "0246813579")  # doubled, and its digits added up


def passes_luhn(digits: str) -> bool:
    """Return whether the last digit is the checksum of the others (ISO/IEC 7812-1, B)."""
    return sum(map(int, digits[-1::-2] + digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def redact_credit_card(text: str) -> str:
    """Redact numbers of 13 to 19 digits, in groups or not, whose checksum is right.

    The first digit is 2 to 6, as on banks' cards; timestamps begin with 1.
    """
    return _DIGIT_GROUPS.sub(_cards_redacted, text) if _CARD_LIKE.search(text) else text


def _cards_redacted(match: _Match) -> str:
    run: str = match[0]
    if match["groups"] is None or len(run) < _CARD_DIGITS.start:
        return run
    parts = []
    end = 0
    for start, stop in _card_spans(run):
        parts += [run[end:start], _CARD_MARKER]
        end = stop
    return "".join([*parts, run[end:]])


def _card_spans(run: str) -> list[tuple[int, int]]:
    """Find the cards among groups of digits: a date may precede a card, and a CVV may follow it.

    Returns:
        The start and the end of each, in order; overlapping ones are merged.
    """
    groups = [match.span() for match in _GROUP.finditer(run)]
    spans: list[tuple[int, int]] = []
    for first, (start, _) in enumerate(groups):
        if not "2" <= run[start] <= "6":
            continue
        digits = ""
        for begin, stop in groups[first : first + _CARD_DIGITS.stop]:
            digits += run[begin:stop]
            if len(digits) >= _CARD_DIGITS.stop:
                break
            if len(digits) in _CARD_DIGITS and passes_luhn(digits):
                overlaps = spans and start < spans[-1][1]
                spans.append((spans.pop()[0] if overlaps else start, stop))
    return spans


_PHONE_MARKER = _marker(BuiltInRedactor.PHONE)
_NATIONAL_DIGITS = range(9, 13)
_PHONE_LIKE = re.compile(r"[0-9](?:[ \u00a0.()/-]{0,3}[0-9]){7}")  # a fast check

# Digits alone are more often an id, a count or a timestamp. So a phone number must have the plus of
# E.164, or the separators and the first digits that are usual in its country.
_PHONE = re.compile(
    rf"""
    # Skipped: UUIDs, dates, and four groups of four, which are a card or an order.
    {_UUID}
    | (?<![0-9]) (?: [0-9]{{4}} ([./-]) [0-9]{{1,2}} \1 [0-9]{{1,2}}
                   | [0-9]{{1,2}} ([./-]) [0-9]{{1,2}} \2 (?: [0-9]{{4}} | [0-9]{{2}} ) )
      (?! [./-]?[0-9] )
    | (?<![0-9]) [0-9]{{4}} (?: [ -][0-9]{{4}} ){{3}} (?![0-9])

    | (?P<world> {_BEGINS} (?<!\+) \+ [1-9] (?: [ \u00a0.()/-]{{0,3}} [0-9] ){{7,14}} (?![0-9]) )

    | {_BEGINS} (?<![0-9.]-) (?<![0-9]\.) (?P<national>
          (?: 1[ .-] )?+                                                       # North America
          (?: [2-9][0-9]{{2}} (?: ([.-]) [2-9][0-9]{{2}} \5 | [ ] [2-9][0-9]{{2}} - )
            | \( [2-9][0-9]{{2}} \) [ .-]? [2-9][0-9]{{2}} [ .-] ) [0-9]{{4}}
        | 0[1-9] ([ .-]) [0-9]{{2}} (?: \6 [0-9]{{2}} ){{3}} (?! \6 [0-9]{{2}} )  # France
        | 0[1-9] (?: [ -] [0-9]{{3,4}} ){{2}}                                  # Australia, Japan
        | (?: 0[1-9][0-9]{{1,4}} [ ]?[ /-][ ]? | \( 0[1-9][0-9]{{0,4}} \) [ /-]? )
          [0-9]{{2,8}} (?: [ -] [0-9]{{2,8}} ){{0,3}}                          # the area code's 0
        | \( [1-9][0-9]{{1,2}} \) [ -]? [0-9]{{3,5}} [ -] [0-9]{{4}}           # Brazil, Argentina
      ) (?! [A-Za-z0-9_] | :[0-9] )
    """,
    re.VERBOSE,
)
_LAST_GROUP = re.compile(r"[ /-]+[0-9]+\Z")


def redact_phone(text: str) -> str:
    """Redact phone numbers that have a plus, or the form of a national number with separators."""
    if _PHONE_LIKE.search(text) is None:
        return text
    parts = []
    end = 0
    while (match := _PHONE.search(text, end)) is not None:
        number = match[0] if match["world"] is not None else _national(match["national"] or "")
        parts += [text[end : match.start()], _PHONE_MARKER if number else match[0]]
        # The next number may follow directly.
        end = match.start() + len(number or match[0])
    return "".join([*parts, text[end:]])


def _national(found: str) -> str:
    """Return a number without groups that do not belong to it, or "" when it is not a number."""
    while _digits(found) >= _NATIONAL_DIGITS.stop and (last := _LAST_GROUP.search(found)):
        found = found[: last.start()]
    return found if _digits(found) in _NATIONAL_DIGITS else ""


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


_IP_MARKER = _marker(BuiltInRedactor.IP_ADDRESS)
_V4_LIKE = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]")  # fast checks
_V6_LIKE = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IP = re.compile(
    rf"""
    (?: (?<![A-Za-z0-9_.]) | {_ESCAPE} ) (?<![A-Za-z]/) (?<!ersion[ ])  # not Chrome/120.0.0.0
      (?P<v4> [0-9]{{1,3}} (?: \.[0-9]{{1,3}} ){{3}} ) (?! [A-Za-z0-9_] | \.[0-9] )
    | (?: (?<![A-Za-z0-9_:.]) | {_ESCAPE} )
      [0-9A-Fa-f]{{0,4}} : [0-9A-Fa-f:.]{{1,45}} (?! [A-Za-z0-9_:] )
    """,
    re.VERBOSE,
)
_ROUTED_V6 = re.compile(r"[23Ff][0-9A-Fa-f]{3}")  # unicast, unique local, link-local, multicast


def redact_ip_address(text: str) -> str:
    """Redact IPv4 and IPv6 addresses, but not the port or the network's size after one."""
    if _V4_LIKE.search(text) is None and _V6_LIKE.search(text) is None:
        return text
    return _IP.sub(_ip_redacted, text)


def _ip_redacted(match: _Match) -> str:
    found: str = match[0]
    if match["v4"] is not None:
        try:
            IPv4Address(found)
        except AddressValueError:
            return found
        return _IP_MARKER
    address = found.rstrip(".")
    if address.endswith(":") and not address.endswith("::"):
        address = address[:-1]
    return _IP_MARKER + found[len(address) :] if _is_ipv6(address) else found


def _is_ipv6(text: str) -> bool:
    """Return whether it is an address, and not the slice 1::2 or the ratio 1:2:3:4:5:6:7:8."""
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    groups = [group for group in text.split(":") if group]
    if "::" not in text:
        return max(map(len, groups)) > 2
    if len(groups) > 2 or "." in text:
        return True
    return text == "::1" or (bool(groups) and _ROUTED_V6.fullmatch(groups[0]) is not None)


_KEY_MARKER = _marker(BuiltInRedactor.API_KEY)

# A digit, or 20 characters without a hyphen, distinguish a key from hyphenated words.
_KEY_LIKE = (
    r"(?:(?=[A-Za-z_-]{0,64}[0-9])[A-Za-z0-9_-]{20,}"
    r"|(?:[a-z0-9]{2,8}-){0,2}[A-Za-z0-9_]{20,}[A-Za-z0-9_-]*)"
)

# By the first characters. To search for these first costs a hundredth of the patterns' time.
_KEYS: Mapping[str, str] = {
    "sk-": "sk-" + _KEY_LIKE,  # OpenAI, Anthropic, DeepSeek, OpenRouter
    "k_live_": r"[prs]k_live_[A-Za-z0-9]{10,}",  # Stripe
    "k_test_": r"[prs]k_test_[A-Za-z0-9]{10,}",
    "AKIA": r"AKIA[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
    "ASIA": r"ASIA[A-Z0-9]{16}(?![A-Za-z0-9])",
    "ghp_": r"ghp_[A-Za-z0-9]{20,}",  # GitHub
    "gho_": r"gho_[A-Za-z0-9]{20,}",
    "ghu_": r"ghu_[A-Za-z0-9]{20,}",
    "ghs_": r"ghs_[A-Za-z0-9]{20,}",
    "ghr_": r"ghr_[A-Za-z0-9]{20,}",
    "github_pat_": r"github_pat_[A-Za-z0-9_]{20,}",
    "glpat-": r"glpat-[A-Za-z0-9_.-]{16,}",  # GitLab
    "xox": r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}",  # Slack
    "xapp-": r"xapp-[A-Za-z0-9-]{10,}",
    "AIza": r"AIza[A-Za-z0-9_-]{30,}",  # Google
    "hf_": r"hf_[A-Za-z0-9]{20,}",  # Hugging Face
    "gsk_": r"gsk_[A-Za-z0-9]{20,}",  # Groq
    "xai-": r"xai-[A-Za-z0-9]{20,}",
    "pplx-": r"pplx-[A-Za-z0-9]{20,}",  # Perplexity
    "r8_": r"r8_[A-Za-z0-9]{20,}",  # Replicate
    "lsv2_": r"lsv2_[a-z]{2}_[A-Za-z0-9_]{20,}",  # LangSmith
    "tvly-": "tvly-" + _KEY_LIKE,  # Tavily
    "pcsk_": r"pcsk_[A-Za-z0-9_]{20,}",  # Pinecone
    "npm_": r"npm_[A-Za-z0-9]{36}",
    "pypi-": r"pypi-[A-Za-z0-9_-]{50,}",
    "SG.": r"SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,}",  # SendGrid
}
_PREFIXED_KEYS = re.compile(
    rf"(?:{_BEGINS}|(?<=%[0-9A-F][0-9A-F]))(?:" + "|".join(_KEYS.values()) + ")"
)

# Header, claims and signature in base64url (RFC 7519, 3); the header begins with {". No hyphen may
# precede it, so that a long run of hyphens and letters is searched once.
_JWT = re.compile(
    rf"(?:(?<![\w-])|{_ESCAPE}|(?<=%[0-9A-F][0-9A-F]))eyJ[\w-]{{8,}}+\.[\w-]{{8,}}+(?:\.[\w-]*+)?",
    re.ASCII,
)

# RFC 6750, 2.1, and other values of these headers. A digit, or some length, distinguishes a token
# from a bank's bearer certificates.
_TOKENS = re.compile(
    r"""
    \b (?P<before> bearer (?: \s | %20 | \+ ){1,8}
      | (?: authorization | x-api-key ) ["']? \s{0,4} [:=] \s{0,4} ["']?
        (?: (?: basic | bearer | token ) \s{1,8} )? )
    (?: (?= [A-Za-z._~+/-]{0,64} [0-9] ) [\w.~+/-]{8,} | [\w.~+/-]{20,} ) =*
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_TOKEN_WORDS = ("bearer", "authorization", "x-api-key")


def redact_api_key(text: str) -> str:
    """Redact API keys of common providers, JSON web tokens, bearer tokens and those of headers."""
    if any(prefix in text for prefix in _KEYS):
        text = _PREFIXED_KEYS.sub(_KEY_MARKER, text)
    if "eyJ" in text:
        text = _JWT.sub(_KEY_MARKER, text)
    lower = text.lower()
    if any(word in lower for word in _TOKEN_WORDS):
        text = _TOKENS.sub(rf"\g<before>{_KEY_MARKER}", text)
    return text


BUILT_IN: Mapping[BuiltInRedactor, Callable[[str], str]] = {
    BuiltInRedactor.API_KEY: redact_api_key,
    BuiltInRedactor.EMAIL: redact_email,
    BuiltInRedactor.CREDIT_CARD: redact_credit_card,
    BuiltInRedactor.IP_ADDRESS: redact_ip_address,
    BuiltInRedactor.PHONE: redact_phone,
}
"""The redactors by their names in `redact`."""
