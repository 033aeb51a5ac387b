"""The daemon's page in a real browser: each state that a person may find it in, as it changes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from arthur_relay.daemon.role_words import ROLE_WORDS
from arthur_relay.daemon.settings import RoleName
from arthur_relay.daemon.status import BEHIND
from tests.sandbox.browser import Browser, Tab, needed_browser
from tests.waiting import wait_for

from .process import PATIENT, arrived, row
from .traces import PROTOBUF, TRACES, body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arthur_relay.sandbox import ArthurSandbox

    from .process import DaemonProcess

pytestmark = pytest.mark.one_python

EVIL = "<img src=x onerror='window.hacked=1'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(needed_browser(), tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def watched(start: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon with a port for its page."""
    return start(ARTHUR_RELAY_DAEMON_METRICS_LISTEN="127.0.0.1:0", **PATIENT).wait_until_ready()


@pytest.fixture
def tab(browser: Browser, watched: DaemonProcess) -> Iterator[Tab]:
    """Its page; its script never fails."""
    opened = browser.open("http://" + watched.address("health and metrics are on"))
    yield opened
    # A refused connection is an outage that the test has made.
    assert [each for each in opened.errors() if "ERR_CONNECTION_REFUSED" not in each] == []
    opened.close()


def test_both_products_are_shown_one_at_a_time(
    browser: Browser,
    start_both: Callable[..., DaemonProcess],
    engine: ArthurSandbox,
    sandbox: ArthurSandbox,
) -> None:
    daemon = start_both(ARTHUR_RELAY_DAEMON_METRICS_LISTEN="127.0.0.1:0", **PATIENT)
    daemon.wait_for_log("rows for Arthur Engine of earlier processes")
    tab = browser.open("http://" + daemon.address("health and metrics are on"))
    until(tab, "#state", "Ready")
    assert tab.texts("#products button") == ["Arthur Scope", "Arthur Engine"]
    engine.faults.status(503, times=None)
    sent = body(1, task=engine.task_id)
    assert daemon.client().post(TRACES, content=sent, headers=PROTOBUF).status_code == 200
    tab.until("document.title === '⚠ arthur-relay'")
    assert tab.text("#waiting") == "0", "the other product is shown"
    tab.evaluate("document.querySelector('#products button:last-child').click()")
    until(tab, "#state", "Arthur answered 503")
    until(tab, "#waiting", "1")
    assert engine.url in tab.text("#destination")
    engine.faults.reset()
    until(tab, "#state", "All is well")
    tab.until("document.title === 'arthur-relay'")
    send(daemon, sandbox.model_id, "a")
    tab.evaluate("document.querySelector('#products button').click()")
    until(tab, "#models", sandbox.model_id)
    assert tab.errors() == []
    tab.close()


def send(daemon: DaemonProcess, model: str, *ids: str) -> None:
    answer = daemon.client().post(
        f"/api/v3/models/{quote(model, safe='')}/inferences",
        headers={"Authorization": "any"},
        json=[row(each) for each in ids],
    )
    assert answer.status_code == 207


def until(tab: Tab, selector: str, text: str) -> None:
    tab.until(f"document.querySelector({selector!r}).innerText.includes({text!r})")


def test_before_any_row_it_says_what_to_do(tab: Tab, watched: DaemonProcess) -> None:
    until(tab, "#state", "Ready")
    assert tab.text("#live") == "Live"
    assert tab.text("#address") == f"ARTHUR_ENDPOINT_URL=unix://{watched.socket}"
    assert tab.text("#models-none") == "No model has had rows."
    assert tab.text("#errors-none") == "None since the start."
    assert tab.text("#waiting") == "0"


def test_rows_and_what_became_of_them_show_up_by_themselves(
    tab: Tab, watched: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    until(tab, "#state", "Ready")
    sandbox.faults.fail_rows(every=1, status=422, times=1)
    send(watched, sandbox.model_id, "bad")
    until(tab, "#rejected", "1")
    send(watched, sandbox.model_id, "a", "b", "c")
    until(tab, "#sent", "3 rows in all")
    assert not tab.shows("#empty")
    until(tab, "#models", sandbox.model_id)
    assert tab.texts("#models td")[1:] == ["4", "3", "0", "1", "0"]
    until(tab, "#letters", "row 422")
    assert any("row 422" in each for each in tab.texts("#errors li"))
    until(tab, "#taken-rate", "/s")
    tab.until("document.querySelector('#sent-line').getAttribute('d').startsWith('M')")
    assert tab.texts("#letters .lost") == []


def test_dead_letters_that_are_gone_are_counted_and_not_offered(
    browser: Browser, start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start(
        ARTHUR_RELAY_DAEMON_METRICS_LISTEN="127.0.0.1:0",
        ARTHUR_RELAY_DEAD_LETTER_BYTES="4096",
        **PATIENT,
    ).wait_until_ready()
    tab = browser.open("http://" + daemon.address("health and metrics are on"))
    sandbox.faults.fail_rows(every=1, status=422, times=None)
    send(daemon, sandbox.model_id, *[f"r{number}" for number in range(20)])
    until(tab, "#rejected", "20")
    until(tab, "#letters", "Gone: there was no room for them")
    kept, gone = (int(each) for each in tab.texts("#letters dd"))
    assert kept + gone == 20
    assert tab.texts("#letters .lost") == [str(gone)]
    until(tab, "#state-detail", f"{gone} dead letters gave way")
    assert tab.errors() == []
    tab.close()


def test_while_arthur_is_away_it_says_so_and_that_rows_wait(
    tab: Tab, watched: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    until(tab, "#state", "Ready")
    sandbox.faults.status(503, times=None)
    send(watched, sandbox.model_id, "a", "b")
    until(tab, "#state", "Arthur answered 503")
    until(tab, "#waiting", "2")
    until(tab, "#age", "the oldest for")
    assert tab.evaluate("document.title") == "⚠ arthur-relay"
    assert "Arthur answered 503" in tab.text("#errors")
    until(tab, "#delivery", "open:")
    sandbox.faults.reset()
    until(tab, "#state", "All is well")
    until(tab, "#waiting", "0")
    assert tab.evaluate("document.title") == "arthur-relay"


def test_when_rows_have_waited_for_long_it_says_that_delivery_is_behind(
    sandbox: ArthurSandbox, start: Callable[..., DaemonProcess], watched: DaemonProcess, tab: Tab
) -> None:
    until(tab, "#state", "Ready")
    sandbox.faults.hang(routes=("inferences",))
    send(watched, sandbox.model_id, "a", "b")
    until(tab, "#waiting", "2")
    assert tab.text("#state").startswith("All is well"), "they have not waited for long"
    # Its next life finds them as if they had waited since yesterday; the page's address stays.
    address = watched.address("health and metrics are on")
    watched.process.kill()
    watched.process.wait()
    watched.age_rows(100_000)
    start(ARTHUR_RELAY_DAEMON_METRICS_LISTEN=address, **PATIENT).wait_until_ready()
    until(tab, "#state", "Delivery is behind")
    assert tab.text("#state-detail") == BEHIND
    assert "warn" in tab.evaluate("document.querySelector('#state').className").split()
    assert tab.text("#age") == "the oldest for 1\u00a0d 3\u00a0h"
    assert tab.evaluate("document.title") == "⚠ arthur-relay"
    sandbox.faults.reset()
    until(tab, "#state", "All is well")
    until(tab, "#age", "no row waits")
    assert arrived(sandbox) == ["a", "b"]


def test_while_the_daemon_stops_it_says_so_until_it_is_gone(
    tab: Tab, watched: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    until(tab, "#state", "Ready")
    sandbox.faults.hang(routes=("inferences",))
    send(watched, sandbox.model_id, "a")
    wait_for(lambda: any(each.path.endswith("/inferences") for each in sandbox.requests))
    watched.send_signal(signal.SIGTERM)
    until(tab, "#state", "The daemon is stopping")
    assert tab.text("#state-detail") == ROLE_WORDS[RoleName.HOST].stopping
    assert tab.text("#live") == "Live"
    assert tab.text("#waiting") == "1"
    assert tab.evaluate("document.title") == "⚠ arthur-relay"
    sandbox.faults.reset()
    assert watched.end(None) == 0, watched.log
    until(tab, "#state", "The daemon does not answer")
    assert tab.text("#live") == "Not connected"
    assert arrived(sandbox) == ["a"]


def test_when_the_daemon_is_gone_it_says_since_when_and_what_is_shown_is_old(
    tab: Tab, watched: DaemonProcess
) -> None:
    until(tab, "#state", "Ready")
    watched.process.kill()
    watched.process.wait()
    until(tab, "#state", "The daemon does not answer")
    assert "It has not since" in tab.text("#state-detail")
    assert tab.text("#live") == "Not connected"
    assert tab.evaluate("document.querySelector('#all').classList.contains('stale')")


def test_before_the_first_answer_it_says_that_it_asks(tab: Tab) -> None:
    until(tab, "#state", "Ready")
    # The page itself comes; what it asks for does not, until we say so.
    never = "fetch = () => new Promise((_, reject) => { window.fail = reject; })"
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=never)
    tab.call("Page.reload")
    wait_for(lambda: tab.evaluate("typeof window.fail === 'function'"))
    assert tab.text("#state") == "Asking the daemon…"
    assert tab.text("#live") == "Connecting"
    assert not tab.shows("#all")
    tab.evaluate("window.fail()")
    until(tab, "#state", "The daemon does not answer")
    assert "since this page was opened" in tab.text("#state-detail")
    assert not tab.shows("#all")


def test_a_name_is_text_and_nothing_else(
    tab: Tab, watched: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    model = sandbox.add_model(model_id=EVIL)
    send(watched, model, "a")
    until(tab, "#models", EVIL)
    assert tab.evaluate("window.hacked") is None
    assert tab.evaluate("document.querySelectorAll('#models img').length") == 0


MANY = "captured: 4e7, delivered: 4e7, pending: 123456, rejected: 123456, dropped: 123456"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_can_be_read_in_light_and_dark_on_small_and_large_screens(
    tab: Tab, watched: DaemonProcess, sandbox: ArthurSandbox, scheme: str, width: int
) -> None:
    tab.resize(width, 800, mobile=width < 500)
    media: Any = [{"name": "prefers-color-scheme", "value": scheme}]
    tab.call("Emulation.setEmulatedMedia", features=media)
    sandbox.faults.fail_rows(every=1, status=422, times=None)
    send(watched, sandbox.model_id, "a", "b")
    until(tab, "#rejected", "2")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.until("document.querySelectorAll('#models td').length === 6")
    assert tab.texts("#models-table th")[1:] == [
        "Taken in",
        "Delivered",
        "Waiting",
        "Rejected",
        "Dropped",
    ]
    tab.evaluate(f"showModels([{{ id: 'x'.repeat(255), {MANY} }}, {{ id: 'other', {MANY} }}])")
    cells = "[...document.querySelectorAll('#models-table th, #models-table td')]"
    edges = tab.evaluate(f"{cells}.map((each) => each.getBoundingClientRect().right)")
    assert len(edges) == 18
    assert max(edges) <= width, "nothing has to be scrolled for"
    worst, text = tab.evaluate(CONTRAST)
    assert worst >= 4.5, text  # WCAG 2, level AA


# The least contrast of a text that can be seen to what is behind it, and that text.
CONTRAST = """(() => {
  const parse = (color) => color.match(/[0-9.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = color.map((value) => value / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("script, svg")) continue;
    const colors = [parse(getComputedStyle(element).color).slice(0, 3), behind(element)];
    const [a, b] = colors.map(luminance);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < worst[0]) worst = [contrast, element.innerText];
  }
  return worst;
})()"""
