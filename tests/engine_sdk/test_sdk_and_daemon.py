"""The unchanged SDK, and OpenTelemetry's own exporter, through the daemon: nothing is lost."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from arthur_observability_sdk import Arthur
from langchain_core.runnables import RunnableLambda
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.util._once import Once

from arthur_relay.sandbox import ArthurSandbox
from tests.daemon.process import DaemonProcess
from tests.environment import forget_arthur
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch, "OPENINFERENCE_", "OTEL_")


def start(sandbox: ArthurSandbox, directory: Path) -> DaemonProcess:
    listen = {"ARTHUR_RELAY_DAEMON_LISTEN": "127.0.0.1:0"}
    return DaemonProcess(sandbox, directory, variables=listen, for_engine=True)


def address(daemon: DaemonProcess) -> str:
    return f"http://{daemon.wait_until_ready().address('taking rows on')}"


def send_by_sdk(url: str, task_id: str, texts: list[str]) -> None:
    arthur = Arthur(api_key="any", base_url=url, task_id=task_id)
    arthur.instrument_langchain()
    try:
        for text in texts:
            RunnableLambda(str.upper).invoke(text)
        provider: Any = trace.get_tracer_provider()
        provider.force_flush()
    finally:
        LangChainInstrumentor().uninstrument()
        arthur.shutdown()
        trace._TRACER_PROVIDER = None
        trace._TRACER_PROVIDER_SET_ONCE = Once()


def inputs(sandbox: ArthurSandbox) -> list[str]:
    return sorted(each["raw_data"]["attributes"]["input.value"] for each in sandbox.spans)


def test_the_sdk_loses_nothing_over_an_outage_and_a_kill(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    before, away = ([f"{when}{n:02}" for n in range(60)] for when in ("a", "b"))
    with start(sandbox, tmp_path) as daemon:
        send_by_sdk(address(daemon), sandbox.task_id, before)
        sandbox.go_away()
        send_by_sdk(address(daemon), sandbox.task_id, away)
        daemon.end(signal.SIGKILL)
    sandbox.come_back()
    with start(sandbox, tmp_path) as daemon:
        wait_for(lambda: len(sandbox.spans) >= 120)
        assert daemon.wait_until_ready().end() == 0, daemon.log
    assert inputs(sandbox) == [*before, *away]


def test_one_bad_text_costs_no_other_span(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    texts = ["one", "a NUL \0 in a text", "three"]
    with start(sandbox, tmp_path) as daemon:
        send_by_sdk(address(daemon), sandbox.task_id, texts)
        client = daemon.client()
        wait_for(lambda: client.get("/status").json()["rows"]["pending"] == 0)
    assert {"one", "three"} <= set(inputs(sandbox))


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_opentelemetrys_exporter(
    compression: Compression, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    with start(sandbox, tmp_path) as daemon:
        endpoint = f"{address(daemon)}/v1/traces"
        provider = TracerProvider(resource=Resource({"service.name": "a shop"}))
        exporter = OTLPSpanExporter(endpoint, compression=compression)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("orders")
        with tracer.start_as_current_span("order"):
            for number in range(100):
                with tracer.start_as_current_span(f"item {number}"):
                    pass
        provider.shutdown()
        wait_for(lambda: len(sandbox.spans) == 101)
    (found,) = sandbox.traces
    assert [root["span_name"] for root in found["root_spans"]] == ["order"]
