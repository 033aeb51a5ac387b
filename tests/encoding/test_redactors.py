"""The built-in redactors: what each finds, what it leaves, and that no text keeps it busy."""

from __future__ import annotations

import random
import string
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.encoding.redactors import BUILT_IN, passes_luhn
from arthur_relay.settings.types import BuiltInRedactor

EMAIL, PHONE, CARD, IP, KEY = (
    BuiltInRedactor.EMAIL,
    BuiltInRedactor.PHONE,
    BuiltInRedactor.CREDIT_CARD,
    BuiltInRedactor.IP_ADDRESS,
    BuiltInRedactor.API_KEY,
)

LETTERS = string.ascii_letters
KEY40 = "aB3" + LETTERS[:37]
JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0."
    "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)

# What is found stands between « and »; the rest has to stay as it is.
FOUND: list[tuple[BuiltInRedactor, str]] = [
    (EMAIL, "write to «alice@example.com»."),
    (EMAIL, "«first.last+tag@mail.example.co.uk», and <«b_2@x-y.io»>"),
    (EMAIL, "mailto:«o'brien@example.ie»?subject=x"),
    (EMAIL, "'«quoted@example.com»' (\"«j@ä-umlaut.de»\")"),
    (EMAIL, "?to=«alice%40example.com»&x=1"),
    (EMAIL, '{"to":"«a@b.org»","cc":["«c@d.net»"]}'),
    (EMAIL, "邮箱 «user@例子.中国»"),
    (CARD, "card «4111111111111111»."),
    (CARD, "«4111 1111 1111 1111» and «5500-0000-0000-0004»"),
    (CARD, "Amex «3782 822463 10005», Diners «3056 930902 5904», Maestro «6759649826438453»"),
    (CARD, "13 digits «4222222222222», 19 digits «6304000000000000000»"),
    (CARD, "«4111 1111 1111 1111» 123 12/27"),
    (CARD, "on 2024-01-02 «4012 8888 8888 1881»"),
    (CARD, r'{"text":"\n«4111111111111111»"}'),
    (CARD, "卡号«4111111111111111»。"),
    (PHONE, "call «+49 151 23456789», or «+1 (555) 234-5678»!"),
    (PHONE, "«+442079460958» «+33 1 23 45 67 89» «+86-138-1234-5678»"),
    (PHONE, "«(555) 234-5678», «555-234-5678», «555.234.5678», «1-555-234-5678», «555 234-5678»"),
    (PHONE, "«030 1234567» «030/1234567» «0151-23456789» «(030) 123 45 67» «0171 234 5678»"),
    (PHONE, "«020 7946 0958», «01 23 45 67 89», «01.23.45.67.89», «03-1234-5678», «02 9374 4000»"),
    (PHONE, "«(11) 91234-5678»"),
    (PHONE, "«030 1234567» 2024 12 31, «030 1234567»: ask for her"),
    (PHONE, r'{"text":"me:\n«+49 151 23456789»\n«030 1234567»"}'),
    (PHONE, "电话«+8613812345678»。"),
    (IP, "from «192.168.1.10» to «10.0.0.1»:8080, net «172.16.0.0»/12."),
    (IP, "http://«203.0.113.7»/path, [«2001:db8::1»]:443, «2001:db8::»/32"),
    (IP, "«2001:0db8:85a3:0000:0000:8a2e:0370:7334» «fe80::1»%eth0 «::ffff:10.0.0.1» «::1»"),
    (IP, "«fd00::1»: it is down. «2001:db8::8a2e:370:7334»."),
    (IP, r'{"log":"\n«10.1.2.3» denied"}'),
    (KEY, f"key «sk-{KEY40}», «sk-proj-{KEY40}-x_Y», «sk-ant-api03-{KEY40}»"),
    (KEY, f"«sk-{LETTERS[:30]}» «sk-or-v1-{KEY40}»"),
    (KEY, f"«sk_live_{KEY40}» «rk_test_{KEY40}»"),
    (KEY, "«AKIAIOSFODNN7EXAMPLE», «ASIAIOSFODNN7EXAMPLE»"),
    (KEY, f"«ghp_{KEY40}» «gho_{KEY40}» «github_pat_{KEY40}_{KEY40}» «glpat-{KEY40}»"),
    (KEY, "«xoxb-123456789012-abcdefABCDEF» «xapp-1-A012-345-abcdef»"),
    (KEY, f"«AIza{KEY40[:35]}» «hf_{KEY40}» «gsk_{KEY40}» «lsv2_pt_{KEY40}»"),
    (KEY, f"«SG.{KEY40[:22]}.{KEY40}»"),
    (KEY, f"token=«{JWT}»; «{JWT[:80]}»"),
    (KEY, "Bearer «abc.def-123_456», bearer  «x9y8z7w6»"),
    (KEY, "authorization: bearer «abcdefghijklmnopqrstuvwxyz»"),
    (KEY, "{'Authorization': 'Basic «dXNlcjpwYXNzd29yZA==»', 'x-api-key': '«0123456789abcdef»'}"),
    (KEY, f'curl -H "Authorization: Bearer «{JWT}»"'),
    (KEY, f"?key%3D«AIza{KEY40[:35]}»"),
]

STAYS: list[tuple[BuiltInRedactor, str]] = [
    (EMAIL, "@user, user@, user@localhost, a @ b.com"),
    (EMAIL, "npm install react@18.2.0 left-pad@1.3.0-beta.1"),
    (EMAIL, "@app.route('/') def f(): return x@y"),
    (CARD, "order 4111111111111112, 4111 1111 1111 1112, 5500-0000-0000-0005"),
    (CARD, "1700000000000 1700000000000000000"),
    (CARD, "0.4111111111111111 3.5500000000000004 0.30000000000000004"),
    (CARD, "550e8400-e29b-41d4-a716-446655440000 41111111-1111-1111-4111-111111111111"),
    (CARD, "id_4111111111111111 x4111111111111111 4111111111111111abc"),
    (CARD, "41111111111111111111111111111111"),
    (PHONE, "version 1.2.3, 10.0.19041.1, 2.31.0-rc.1, gpt-4o-2024-08-06, 1.2.3.4"),
    (PHONE, "2024-01-02 12:30, 01.02.2024 12:30, 01/02/2024 100 200, 1700000000, 1700000000123"),
    (PHONE, "2024-01-02T03:04:05.678+00:00, 12:34:56, 09:00-17:00, 0900-1700"),
    (PHONE, "550e8400-e29b-41d4-a716-446655440000, 12345678-1234-1234-1234-123456789012"),
    (PHONE, "order 4111 1111 1111 1112 and 4111-0111-1111-1112, id 0012345678, #5552345678"),
    (PHONE, "256 512 1024, 200 300 4000, 1 000 000 000, 12,345,678, 3.14159265358979"),
    (PHONE, "pages 1234-1240 (2019), +1 000 000 users, +5%, 2+2=4, (2020) 1123-1145"),
    (PHONE, "ISBN 978-3-16-148410-0, SSN-like 123-45-6789, 192.168.100.200"),
    (PHONE, "x+12345678 and C++12345678"),
    (IP, "1.2.3, v1.2.3.4, version 1.2.3.4, 10.0.19041.1, 999.1.1.1, 1.2.3.4.5, 256.1.1.1"),
    (IP, "Chrome/120.0.0.0 Safari/537.36"),
    (IP, "12:30:45, 12:30, std::vector<int>, Foo::Bar, x :: Int, a[1::2], a[::2], a[::-1]"),
    (IP, "aa:bb:cc:dd:ee:ff, aa:bb:cc:dd:ee:ff:00:11, 1:2:3:4:5:6:7:8, 010.0.0.1"),
    (IP, "sha256 " + ":".join(["3a"] * 32) + ", 2024-01-02T03:04:05"),
    (IP, "550e8400-e29b-41d4-a716-446655440000 {a: 1, dead: beef, face:b00c}"),
    (KEY, "task-force-one-hundred-people, sk-learn, sk-container-id-1, sk-toggleable__label-arrow"),
    (KEY, "the bearer of good news, bearer certificates, Bearer token, Bearer $TOKEN"),
    (KEY, "authorization: required, Authorization header, x-api-key: <key>"),
    (KEY, "hf_hub_download npm_config_registry ghp_ xoxb AKIA eyJ eyJhbGciOiJIUzI1NiJ9"),
    (KEY, "550e8400-e29b-41d4-a716-446655440000 " + "0123456789abcdef" * 4),
    (KEY, "class=sk-estimator-doc-link-fitted"),
]


def marker(name: BuiltInRedactor) -> str:
    return f"[redacted: {name.value}]"


@pytest.mark.parametrize(("name", "text"), FOUND)
def test_what_is_found(name: BuiltInRedactor, text: str) -> None:
    plain = text.replace("«", "").replace("»", "")
    expected = "".join(
        part if index % 2 == 0 else marker(name)
        for index, part in enumerate(text.replace("»", "«").split("«"))
    )
    assert BUILT_IN[name](plain) == expected


@pytest.mark.parametrize(("name", "text"), STAYS)
def test_what_only_looks_alike_stays(name: BuiltInRedactor, text: str) -> None:
    assert BUILT_IN[name](text) == text


@pytest.mark.parametrize("name", BUILT_IN)
def test_redacted_texts_stay_as_they_are(name: BuiltInRedactor) -> None:
    for other, text in FOUND:
        redacted = BUILT_IN[other](text.replace("«", "").replace("»", ""))
        if other is name:
            assert BUILT_IN[name](redacted) == redacted
        assert marker(other) in BUILT_IN[name](redacted)


PROSE = st.text(st.characters(exclude_characters="@%", exclude_categories=["N", "Cs"]))


@given(PROSE)
def test_texts_without_digits_and_signs_stay(text: str) -> None:
    for name in (EMAIL, PHONE, CARD):
        assert BUILT_IN[name](text) == text


@given(st.text())
def test_any_text_is_taken_and_a_second_time_changes_nothing(text: str) -> None:
    for redact in BUILT_IN.values():
        once = redact(text)
        assert redact(once) == once


@given(st.uuids(), st.datetimes(), st.integers(0, 2_000_000_000), st.integers(0, 99))
def test_ids_and_times_stay(run_id: UUID, moment: object, seconds: int, minor: int) -> None:
    text = f"{run_id} {moment} {seconds} v{minor}.{minor}.{minor}"
    for name in (EMAIL, PHONE, CARD, KEY):
        assert BUILT_IN[name](text) == text


def luhn_digit(digits: str) -> str:
    """Return the checksum as the rule says it: every second digit from the right is doubled."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


@given(st.from_regex(r"[2-6][0-9]{11,17}", fullmatch=True), st.integers(1, 9))
def test_cards_are_those_whose_checksum_is_right(digits: str, change: int) -> None:
    right = luhn_digit(digits)
    wrong = str((int(right) + change) % 10)
    assert passes_luhn(digits + right)
    assert not passes_luhn(digits + wrong)
    assert BUILT_IN[CARD](f"paid with {digits}{right}.") == f"paid with {marker(CARD)}."
    assert BUILT_IN[CARD](f"order {digits}{wrong}.") == f"order {digits}{wrong}."


HOSTILE_SIZE = 100_000
UNITS = [
    "a",
    "0",
    "1",
    "4",
    "+",
    "@",
    ".",
    ":",
    "-",
    "_",
    " ",
    "%40",
    "(",
    "\\n",
    "é",
    "a@",
    "a@b.",
    "a.",
    "a-",
    "1.",
    "1-",
    "1 ",
    "0 ",
    "4 ",
    "4-",
    "1:",
    "a:",
    "::",
    ":a:",
    "01-",
    "01 ",
    "030 ",
    "(030) ",
    "+1 ",
    "+1-",
    "555-",
    "(555) ",
    "1.2.3.",
    "1.2.3.4 ",
    "sk-",
    "sk-a",
    "sk-a1-",
    "eyJ",
    "-eyJ",
    "eyJa.",
    "\\neyJaaaaaaaa",
    "SG.",
    "SG.aaaaaaaaaaaaaaaa",
    "bearer ",
    "bearer+",
    "bearer%20",
    "authorization:",
    "xox",
    "AKIA",
    "ghp_",
    "pypi-",
    "k_live_",
    "12345678-",
    "12345678-1234-",
    "4111 1111 1111 111",
    "4111-",
    "a" * 70 + "@",
    "2001:db8:",
]  # fmt: skip - one a line would be three screens


@pytest.mark.one_python
@pytest.mark.parametrize("name", BUILT_IN)
def test_no_text_keeps_a_redactor_busy(name: BuiltInRedactor) -> None:
    """It ends: a pattern that goes back again and again would take hours for one of these."""
    for unit in UNITS:
        for end in ("!", "@a"):
            BUILT_IN[name]((unit * (HOSTILE_SIZE // len(unit) + 1))[:HOSTILE_SIZE] + end)
    chooser = random.Random(7)
    for _ in range(5):
        mixed = "".join(chooser.choices(UNITS, k=HOSTILE_SIZE // 3))
        BUILT_IN[name](mixed[:HOSTILE_SIZE])
