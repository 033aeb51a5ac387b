"""The unchanged SDK and the old handler take the sandbox for Arthur."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import requests
from arthurai import ArthurAI
from arthurai.client.validation import validate_multistatus_response_and_get_failures
from arthurai.common.constants import InputType, OutputType, Stage, ValueType
from arthurai.common.exceptions import (
    ArthurUserError,
    ResponseClientError,
    ResponseServerError,
    UnexpectedValueError,
    UserValueError,
)
from langchain_community.callbacks.arthur_callback import ArthurCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from tests.readme import example

from arthur_relay.sandbox import ArthurSandbox, demo_attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.conformance

OK = {"message": "success", "status": 200}


def connect(sandbox: ArthurSandbox, **credentials: Any) -> Any:
    return ArthurAI(url=sandbox.url, allow_insecure=True, verify_ssl=True, **credentials)


@pytest.fixture
def arthur(sandbox: ArthurSandbox) -> Any:
    return connect(sandbox, access_key=sandbox.api_key)


@pytest.fixture
def model(arthur: Any, sandbox: ArthurSandbox) -> Any:
    return arthur.get_model(sandbox.model_id)


def rows(*ids: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {"partner_inference_id": each, "input_text": "Hi", "output_text": "Hello", **more}
        for each in ids
    ]


def test_login_and_password(sandbox: ArthurSandbox) -> None:
    arthur = connect(sandbox, login=sandbox.login, password=sandbox.password)
    assert arthur.get_model(sandbox.model_id).id == sandbox.model_id
    assert sandbox.state["logins"] == 2, "the SDK logs in, and at once again to refresh"
    last = sandbox.requests[-1]
    assert last.headers["arthur-organization-id"] == "sandbox-org"
    assert last.headers["user-agent"].startswith("arthur-sdk/")


def test_api_key(sandbox: ArthurSandbox) -> None:
    arthur = connect(sandbox, access_key=sandbox.api_key)
    assert arthur.get_model(sandbox.model_id).id == sandbox.model_id


def test_the_environment(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = sandbox.environment()
    for name in ("ARTHUR_API_KEY", "ARTHUR_ENDPOINT_URL"):
        monkeypatch.setenv(name, environment[name])
    arthur = ArthurAI(allow_insecure=True)
    assert arthur.get_model(environment["ARTHUR_MODEL_ID"]).id == sandbox.model_id


def test_a_wrong_password(sandbox: ArthurSandbox) -> None:
    with pytest.raises(UserValueError, match="ensure your username and password are correct"):
        connect(sandbox, login=sandbox.login, password="wrong")


def test_a_wrong_key(sandbox: ArthurSandbox) -> None:
    with pytest.raises(UserValueError, match="ensure your access key is correct"):
        connect(sandbox, access_key="wrong")


@pytest.mark.parametrize(("outside", "header"), [(True, "sandbox-org"), (["x"], "x"), ([], None)])
def test_an_outside_identity_provider(outside: bool | Sequence[str], header: str | None) -> None:
    with ArthurSandbox(outside_identity_provider=outside) as sandbox:
        connect(sandbox, access_key=sandbox.api_key).get_model(sandbox.model_id)
        assert sandbox.requests[-1].headers.get("arthur-organization-id") == header


def test_an_outside_identity_provider_with_two_organizations() -> None:
    with ArthurSandbox(outside_identity_provider=["x", "y"]) as sandbox:
        with pytest.raises(UserValueError, match="multiple organizations"):
            connect(sandbox, access_key=sandbox.api_key)
        arthur = connect(sandbox, access_key=sandbox.api_key, organization_id="y")
        assert arthur.get_model(sandbox.model_id)
        with pytest.raises(ResponseClientError, match="403"):
            connect(sandbox, access_key=sandbox.api_key, organization_id="z").get_model("m")


def test_the_model(arthur: Any, model: Any) -> None:
    assert model.input_type == InputType.NLP
    assert model.output_type == OutputType.TokenSequence
    expected = {each["name"]: each for each in demo_attributes()}
    assert {each.name for each in model.get_attributes()} == expected.keys()
    for each in model.get_attributes():
        assert each.value_type == expected[each.name]["value_type"]
        assert each.value_type in ValueType.list()
        assert each.stage in Stage.list()
    assert model.ground_truth_type == Stage.GroundTruth
    assert arthur.get_model("arthur-relay-demo", id_type="partner_model_id").id == model.id


def test_an_unknown_model(arthur: Any) -> None:
    with pytest.raises(ResponseClientError, match="404"):
        arthur.get_model("nope")


# The SDK's summary of a new model uses what pandas has deprecated, and pandas what NumPy has.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_model_can_be_saved(arthur: Any, sandbox: ArthurSandbox) -> None:
    model = arthur.model(
        partner_model_id="saved",
        input_type=InputType.NLP,
        output_type=OutputType.TokenSequence,
    )
    model.build_token_sequence_model(
        "question", "answer", output_token_column="tokens", output_likelihood_column="likelihoods"
    )
    model_id = model.save()
    assert arthur.get_model(model_id).partner_model_id == "saved"
    sent = [{"question": "Hi", "answer": "Hello", "likelihoods": [{"He": 0.5}, {"llo": 0.25}]}]
    assert model.send_inferences(sent)["counts"]["success"] == 1
    assert sandbox.inferences[0]["model_id"] == model_id


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_model_is_registered_as_the_page_says(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_PASSWORD", sandbox.password)
    here = f"{sandbox.url!r}, allow_insecure=True"
    code = example("register", "docs/attributes.md").replace('"https://app.arthur.ai"', here)
    names: dict[str, Any] = {}
    exec(compile(code.replace('"admin"', repr(sandbox.login)), "attributes.md", "exec"), names)
    found_names = {each.name for each in names["arthur"].get_model(names["model_id"]).attributes}
    assert found_names >= {"input_text", "output_text", "likelihoods", "prompt_tokens", "duration"}


def test_inferences(model: Any, sandbox: ArthurSandbox) -> None:
    answer = model.send_inferences(rows("a", "b", tags=["x"], prompt_tokens=3, duration=0.5))
    assert answer["counts"] == {"success": 2, "failure": 0, "total": 2}
    assert answer["results"][1] == OK | {"partner_inference_id": "b"}
    stored = sandbox.inferences[0]
    assert stored["partner_inference_id"] == "a"
    assert stored["inference_data"] == {
        "input_text": "Hi",
        "output_text": "Hello",
        "tags": ["x"],
        "prompt_tokens": 3,
        "duration": 0.5,
    }


def test_inferences_in_a_frame_with_ground_truth(model: Any, sandbox: ArthurSandbox) -> None:
    pd = pytest.importorskip("pandas")  # not imported above: it has no type stubs
    frame = pd.DataFrame(rows("a", "b")).assign(duration=[0.5, math.nan], thumbs_up=[True, False])
    assert model.send_inferences(frame)["counts"]["success"] == 2
    assert sandbox.inferences[1]["inference_data"]["duration"] is None
    assert [each["ground_truth_data"] for each in sandbox.inferences] == [
        {"thumbs_up": True},
        {"thumbs_up": False},
    ]


def test_bad_rows(model: Any, sandbox: ArthurSandbox) -> None:
    sent = rows("a") + rows("b", duration="long") + rows("c")
    with pytest.raises(ResponseClientError, match="'duration' must be FLOAT"):
        model.send_inferences(sent)
    assert [each["partner_inference_id"] for each in sandbox.inferences] == ["a", "c"]
    answer = model.send_inferences(rows("d") + rows("e", output_text=None), fail_silently=True)
    assert answer["counts"] == {"success": 1, "failure": 1, "total": 2}
    assert answer["results"][1]["status"] == 400


def test_rows_that_fail_at_arthur(model: Any, sandbox: ArthurSandbox) -> None:
    sandbox.faults.fail_rows([200, 500])
    with pytest.raises(ResponseServerError, match="1 Arthur internal exceptions"):
        model.send_inferences(rows("a", "b"))


def test_whole_requests_that_fail(model: Any, sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(503)
    with pytest.raises(ResponseServerError, match="503"):
        model.send_inferences(rows("a"))
    sandbox.faults.wrong_counts(0)
    sandbox.faults.wrong_length(-1)
    model.send_inferences(rows("b"))
    assert model.send_inferences(rows("c", "d"))["results"] == [OK], "the SDK only warns"


def test_ground_truth(model: Any, sandbox: ArthurSandbox) -> None:
    model.send_inferences(rows("a", "b"))
    answer = model.update_inference_ground_truths([True, False], partner_inference_ids=["a", "b"])
    assert answer["counts"] == {"success": 2, "failure": 0, "total": 2}
    assert sandbox.inferences[1]["ground_truth_data"] == {"thumbs_up": False}
    with pytest.raises(ArthurUserError, match="no inference has this partner_inference_id"):
        model.update_inference_ground_truths([True], partner_inference_ids=["unknown"])


def test_its_own_check_accepts_the_answers(sandbox: ArthurSandbox) -> None:
    def send(method: str, sent: Any) -> requests.Response:
        return requests.request(
            method,
            f"{sandbox.url}/api/v3/models/{sandbox.model_id}/inferences",
            json=sent,
            headers={"Authorization": sandbox.api_key},
            timeout=10,
        )

    check = validate_multistatus_response_and_get_failures
    good = {
        "partner_inference_id": "a",
        "inference_timestamp": "2026-06-07T12:00:13Z",
        "inference_data": {"output_text": "Hello"},
    }
    sandbox.faults.fail_rows([200, 200, 503], times=1)
    user_failures, internal_failures = check(send("POST", [good, {}, good]))
    assert [each["status"] for each in user_failures] == [400]
    assert [each["status"] for each in internal_failures] == [503]
    assert check(send("POST", [])) == ([], [])
    user_failures, internal_failures = check(send("PATCH", [{}, good]))
    assert len(user_failures) == 2
    assert internal_failures == []
    sandbox.faults.status(200)
    with pytest.raises(UnexpectedValueError, match="expected response with status code 207"):
        check(send("POST", [good]))


class Parrot(BaseChatModel):
    """A chat model that says back what it hears, in two tokens."""

    @property
    def _llm_type(self) -> str:
        return "parrot"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        top = [{"He": math.log(0.5), "Ho": math.log(0.25)}, {"llo": math.log(0.75)}]
        generation = ChatGeneration(
            message=AIMessage(content=messages[-1].content),
            generation_info={"finish_reason": "stop", "logprobs": {"top_logprobs": top}},
        )
        usage = {"prompt_tokens": 4, "completion_tokens": 2}
        return ChatResult(generations=[generation], llm_output={"token_usage": usage})


def test_the_old_handler(model: Any, sandbox: ArthurSandbox) -> None:
    handler = ArthurCallbackHandler(model)
    Parrot().invoke("Hello", config={"callbacks": [handler]})
    (stored,) = sandbox.inferences
    data = stored["inference_data"]
    assert data.pop("duration") >= 0
    likelihoods = data.pop("output_likelihoods")
    assert likelihoods[0] == pytest.approx({"He": 0.5, "Ho": 0.25})
    assert data == {
        "input_text": "Human: Hello",
        "output_text": "Hello",
        "finish_reason": "stop",
        "prompt_tokens": 4,
        "completion_tokens": 2,
    }
