"""Where Arthur Engine is, and by which key it is spoken to."""

from pathlib import Path

import pytest

from arthur_relay.credentials import ENGINE_URL, Credentials, resolve_engine_credentials
from arthur_relay.errors import ConfigurationError, CredentialsError
from arthur_relay.settings import ENGINE_BATCH_SIZE, ENGINE_MAX_IN_FLIGHT, RelaySettings


def resolved(environment: dict[str, str], **given: str) -> Credentials:
    return resolve_engine_credentials(allow_insecure=False, environment=environment, **given)


def test_from_the_sdks_variables() -> None:
    found = resolved({"ARTHUR_API_KEY": "k", "ARTHUR_BASE_URL": "https://engine.example/"})
    assert (found.url, found.api_key) == ("https://engine.example", "k")


def test_the_engine_of_this_machine_is_the_default() -> None:
    assert resolved({"ARTHUR_API_KEY": "k", "ARTHUR_BASE_URL": " "}).url == ENGINE_URL


def test_arguments_win() -> None:
    environment = {"ARTHUR_API_KEY": "k", "ARTHUR_BASE_URL": "https://engine.example"}
    found = resolved(environment, url="http://localhost:9", api_key="other")
    assert (found.url, found.api_key) == ("http://localhost:9", "other")


def test_the_address_may_be_the_one_that_exporters_are_given() -> None:
    found = resolved({"ARTHUR_API_KEY": "k"}, url="https://engine.example/api/v1/traces")
    assert found.url == "https://engine.example"


def test_a_key_in_a_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first\n", encoding="utf-8")
    found = resolved({"ARTHUR_API_KEY_FILE": str(file)})
    assert found.api_key == "first"
    file.write_text("second\n", encoding="utf-8")
    assert found.renewed().api_key == "second"


def test_without_a_key() -> None:
    with pytest.raises(CredentialsError, match="set ARTHUR_API_KEY"):
        resolved({})
    assert resolved({}, url="unix:///run/arthur-relay/relay.sock").api_key


@pytest.mark.parametrize("key", ["é", "a\nb"])
def test_a_key_that_can_not_be_sent(key: str) -> None:
    with pytest.raises(CredentialsError, match="copy it again"):
        resolved({}, api_key=key)


def test_plain_http_to_another_machine() -> None:
    with pytest.raises(ConfigurationError, match="plain HTTP"):
        resolved({"ARTHUR_API_KEY": "k"}, url="http://engine.example")


def test_the_engines_defaults_give_way_to_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    found = RelaySettings().for_engine()
    assert (found.batch_size, found.max_in_flight) == (ENGINE_BATCH_SIZE, ENGINE_MAX_IN_FLIGHT)
    monkeypatch.setenv("ARTHUR_RELAY_BATCH_SIZE", "500")
    found = RelaySettings(max_in_flight=4).for_engine()
    assert (found.batch_size, found.max_in_flight) == (500, 4)
