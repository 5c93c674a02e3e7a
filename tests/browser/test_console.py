"""The operations console in a browser: every page, and what operators do there."""

import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page

from sandbox.documents import change_configure, new_order_id
from sandbox.requester import Requester
from tests.asyncapi.node import installed
from tests.browser.chromium import Window
from tests.browser.conftest import HERE, Furnished, entered
from tests.support import REPOSITORY
from tests.support.http import gateways
from tests.support.waiting import eventually

PAGES = ("/", "/requests", "/waiting", "/dead", "/batches", "/pauses", "/audit", "/archive")
AXE = """async () => {
    const found = await axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]});
    return found.violations.map(one => one.id + ": " + one.nodes.map(node => node.html).join(" | "));
}"""


@pytest.fixture
def window(furnished: Furnished, browser: Browser) -> Iterator[Window]:
    with entered(browser, furnished.site.gateway, "alice") as found:
        yield found


def paths(furnished: Furnished) -> list[str]:
    """All pages, with one of a request, of an order, and of a batch."""
    return [
        *PAGES,
        f"/request?key={furnished.command}",
        f"/request?key={furnished.order}",
        f"/batch?name={furnished.batch}",
    ]


@pytest.fixture(scope="session")
def axe() -> str:
    return (installed(HERE) / "node_modules/axe-core/axe.min.js").read_text()


def is_as_wide_as_its_window(page: Page) -> bool:
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width <= page.viewport_size["width"]  # type: ignore[index]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_whole_accessible_and_fits_a_narrow_screen(
    furnished: Furnished, browser: Browser, axe: str, language: str, theme: str
) -> None:
    """In both languages, dark and light; no violation of the policy, and none that axe knows."""
    locale = {"en": "en-GB", "zh": "zh-CN"}[language]
    # The checks of axe are put into the page, which its policy would not allow.
    options = {"locale": locale, "color_scheme": theme, "bypass_csp": False}
    with entered(browser, furnished.site.gateway, "alice", **options) as window:
        page = window.page
        for path in paths(furnished):
            window.go(path)
            assert (
                page.locator("html").get_attribute("lang") == {"en": "en", "zh": "zh-CN"}[language]
            )
            assert page.locator("h1").count() == 1
            dark = (
                page.evaluate("getComputedStyle(document.body).backgroundColor")
                == "rgb(16, 20, 27)"
            )
            assert dark == (theme == "dark")
            has_chinese = re.search(r"[\u4e00-\u9fff]", page.locator("h1").inner_text()) is not None
            assert has_chinese == (language == "zh") or path.startswith("/re"), path
            page.set_viewport_size({"width": 400, "height": 800})
            assert is_as_wide_as_its_window(page), path
            page.set_viewport_size({"width": 1280, "height": 800})
            assert is_as_wide_as_its_window(page), path
            page.evaluate(axe)
            assert page.evaluate(AXE) == [], path
        assert window.complaints == []


def test_pages_are_brought_up_to_date_by_themselves(furnished: Furnished, window: Window) -> None:
    window.go("/waiting")
    before = window.page.locator("#live").inner_text()
    window.page.wait_for_function(
        "text => document.getElementById('live').innerText !== text", arg=before
    )
    window.page.locator("#live-switch").click()
    assert "live=off" in window.page.url
    assert window.page.locator("#live").get_attribute("hx-get") is None
    assert window.complaints == []


def test_the_console_is_used_by_the_keyboard_alone(furnished: Furnished, window: Window) -> None:
    page, keyboard = window.page, window.page.keyboard
    window.go("/")
    keyboard.press("Tab")
    skip = page.locator(":focus")
    assert skip.inner_text() == "Skip to the content"
    assert skip.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for key, title in (("r", "Requests"), ("w", "Waiting"), ("d", "Dead letters"), ("p", "Pauses")):
        with page.expect_navigation():
            keyboard.press("g")
            keyboard.press(key)
        assert page.locator("h1").inner_text() == title
    keyboard.press("?")
    assert page.get_by_text("Show or hide this list").is_visible()
    with page.expect_navigation():
        keyboard.press("g")
        keyboard.press("r")
    keyboard.press("/")
    # Keys that are typed are no shortcuts.
    keyboard.type(furnished.command)
    with page.expect_navigation():
        keyboard.press("Enter")
    assert furnished.command in page.locator("h1").inner_text()
    # From the beginning of the page every link and button can be reached, and none holds the focus.
    seen = set()
    for _ in range(80):
        keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
    assert len(seen) > 15


def test_language_and_theme_are_chosen_and_kept(furnished: Furnished, window: Window) -> None:
    window.go("/audit?action=pause")
    window.page.get_by_role("button", name="中文").click()
    assert "审计记录" in window.page.locator("h1").inner_text()
    assert "action=pause" in window.page.url
    window.page.get_by_role("button", name="深色").click()
    window.go("/")
    assert window.page.locator("html").get_attribute("data-theme") == "dark"
    assert "概览" in window.page.locator("h1").inner_text()
    assert (
        window.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 20, 27)"
    )


def test_a_requests_course_is_a_picture_with_its_text_beside_it(
    furnished: Furnished, window: Window
) -> None:
    page = window.page
    window.go("/requests")
    page.locator("#key").fill(furnished.order)
    page.get_by_role("button", name="Search").click()
    picture = page.locator("svg.timeline")
    assert picture.get_attribute("role") == "img"
    assert picture.locator("rect").count() >= 4
    rows = page.locator("section:has(svg.timeline) tbody tr")
    # Everything in the picture is in the table.
    assert rows.count() >= picture.locator("rect").count()
    text = page.locator("section:has(svg.timeline)").inner_text()
    for word in ("received", "effect", "update", "result"):
        assert word in text, word
    window.go("/request?key=nothing-of-this-name")
    assert "nothing-of-this-name" in window.text()
    assert window.page.locator("svg.timeline").count() == 0


def test_a_script_in_a_message_is_shown_and_not_run(furnished: Furnished, window: Window) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    dialogs: list[str] = []
    window.page.on("dialog", lambda one: (dialogs.append(one.message), one.dismiss()))
    with Requester(furnished.site.workshop.broker_url) as requester:
        depth = requester.depth("ecs.dead")
        requester.publish("ecs.commands", "server.action", {"operation": "server.action" + evil})
        eventually(lambda: requester.depth("ecs.dead") > depth)
    window.go("/dead")
    window.go(f"/request?key={evil}")
    assert evil in window.text()
    assert dialogs == []
    assert window.complaints == []


def test_a_kind_is_paused_and_resumed_with_preview_and_on_record(
    furnished: Furnished, window: Window
) -> None:
    page = window.page
    window.go("/pauses")
    page.locator("form[action$=pause] input[value=images]").check()
    page.locator("#reason").fill("the image store is moved")
    page.locator("#for").fill("half an hour")
    page.get_by_role("button", name="Preview").first.click()
    assert "This is no duration" in window.text()
    page.go_back()
    page.locator("form[action$=pause] input[value=images]").check()
    page.locator("#reason").fill("the image store is moved")
    page.locator("#for").fill("30m")
    page.get_by_role("button", name="Preview").first.click()
    assert "Nothing has been done yet" in window.text()
    page.get_by_role("button", name="Dark").click()
    assert page.url.endswith("/console/pauses"), "a preview is the answer to a form, and no page"
    page.locator("form[action$=pause] input[value=images]").check()
    page.locator("#reason").fill("the image store is moved")
    page.locator("#for").fill("30m")
    page.get_by_role("button", name="Preview").first.click()
    shown = furnished.site.workshop.command("audit", "--action", "pause", "-o", "json")
    assert "image store" not in shown.stdout
    page.get_by_role("button", name="Pause", exact=True).click()
    assert "Paused. Every worker stops" in window.text()
    window.go("/")
    page.locator("section:has(#h-paused)").get_by_text("the image store is moved").wait_for()
    with Requester(furnished.site.workshop.broker_url) as requester:
        eventually(lambda: requester.consumers("ecs.images") == 0)
    window.go("/pauses")
    page.locator("form[action$=resume] input[value=images]").check()
    page.get_by_role("button", name="Preview").last.click()
    assert "the image store is moved" in window.text()
    page.get_by_role("button", name="Resume").click()
    assert "Resumed. Every worker goes on" in window.text()
    window.go("/audit?word=images")
    record = window.text()
    assert "alice" in record
    assert "127.0.0.1" in record
    assert "resume" in record


def test_an_order_is_cancelled_before_it_begins(furnished: Furnished, window: Window) -> None:
    page, workshop = window.page, furnished.site.workshop
    assert workshop.command("pause", "orders", "--reason", "test").returncode == 0
    order_id = new_order_id()
    server = furnished.site.tenant.make_server()
    with Requester(workshop.broker_url) as requester:
        eventually(lambda: requester.consumers("ecs.orders") == 0)
        order = change_configure(server, furnished.site.tenant.image, order_id=order_id)
        requester.order(order, "order.changeConfigure")
        window.go(f"/request?key={order_id}")
        page.locator("#reason").fill("ordered twice")
        page.get_by_role("button", name="Preview").click()
        assert "ordered twice" in window.text()
        page.get_by_role("button", name="Cancel an order").click()
        assert "Cancelled." in window.text()
        assert workshop.command("resume", "orders").returncode == 0
        eventually(lambda: _result(workshop, order_id) == "cancelled", 30)
    # One that has its result is not cancelled.
    window.go(f"/request?key={furnished.order}")
    assert page.get_by_role("button", name="Preview").count() == 0
    window.go(f"/audit?word={order_id}")
    assert "ordered twice" in window.text()


def _result(workshop: object, key: str) -> str | None:
    shown = workshop.command("journal", "show", key, "-o", "json")  # type: ignore[attr-defined]
    rows = json.loads(shown.stdout or "[]")
    result = rows[0]["result"] if rows else None
    return result["data"].get("reason") if result else None


def test_dead_letters_are_rehearsed_replayed_stopped_and_gone_on_with_at_another_gateway(
    furnished: Furnished, browser: Browser
) -> None:
    workshop = furnished.site.workshop
    before = {one["id"] for one in furnished.dead()}
    sent = furnished.park(120)
    with gateways(workshop) as start:
        second = start()
        with (
            entered(browser, furnished.site.gateway, "alice") as first,
            entered(browser, second, "bob") as other,
        ):
            page = first.page
            first.go("/dead")
            group = next(one["group"] for one in furnished.dead() if one["id"] == sent[0])
            page.get_by_role("link", name=group).click()
            page.locator("#why").fill("expired while nobody read")
            # Half a minute for all of them: the other gateway's page must be there before.
            page.locator("#rate").fill("4")
            page.get_by_role("button", name="Preview").click()
            assert "Nothing has been done yet" in first.text()
            assert page.locator("#able").inner_text() == "120"
            assert "would" in page.locator("section:has(#h-rehearsal)").inner_text()
            assert len(furnished.dead()) == len(before) + 120
            page.get_by_role("button", name="Replay", exact=True).click()
            page.locator("#stop").wait_for()
            name = page.url.rpartition("name=")[2]
            # Seen, and stopped, at the other gateway.
            other.go(f"/batch?name={name}")
            other.page.locator("#stop").click()
            assert "Stopping" in other.text()
            other.page.locator("#resume").wait_for()
            left = int(other.page.locator("#left").inner_text())
            assert 0 < left < 120
            eventually(lambda: len(furnished.dead()) == len(before) + left)
            other.page.locator("#vouch").check()
            other.page.locator("#resume").click()
            other.page.get_by_role("button", name="Go on").click()
            other.page.locator(".tag.good", has_text="ended").first.wait_for(timeout=120_000)
            assert other.page.locator("#left").inner_text() == "0"
            # The page of the first brings itself up to date.
            page.locator(".tag.good", has_text="ended").first.wait_for()
            assert "alice, bob" in first.text()
            assert not first.complaints
            first.go("/audit?action=dead+replay")
            assert "alice" in first.text()
            assert "bob" in first.text()
    assert {one["id"] for one in furnished.dead()} == before


def test_what_was_confirmed_is_what_is_done(furnished: Furnished, window: Window) -> None:
    """Messages that come after the preview are left alone; where some are gone, it is shown again."""
    page = window.page
    sent = furnished.park(3)
    window.go("/dead?" + "&".join(f"id={one}" for one in sent))
    page.locator("input[name=action][value=discard]").check()
    page.locator("#why").fill("rubbish")
    page.get_by_role("button", name="Preview").click()
    assert page.locator("#able").inner_text() == "3"
    gone = furnished.site.workshop.command("dead", "discard", "--id", sent[0], "--yes")
    assert gone.returncode == 0, gone.stderr
    page.get_by_role("button", name="Discard", exact=True).click()
    assert "have changed since the preview" in window.text()
    assert page.locator("#able").inner_text() == "2"
    page.get_by_role("button", name="Discard", exact=True).click()
    page.locator(".tag.good", has_text="ended").first.wait_for()
    assert not {one["id"] for one in furnished.dead()} & set(sent)
    page.locator("#to-archive").click()
    page.get_by_label("All shown").check()
    page.get_by_role("button", name="Preview of restoring").click()
    page.get_by_role("button", name="Restore", exact=True).click()
    assert "Restored to the dead letters" in window.text()
    eventually(lambda: set(sent[1:]) <= {one["id"] for one in furnished.dead()})
    window.go("/audit?action=dead+restore")
    assert "alice" in window.text()


def test_everything_works_without_scripts(furnished: Furnished, browser: Browser) -> None:
    sent = furnished.park(2)
    options = {"java_script_enabled": False}
    with entered(browser, furnished.site.gateway, "carol", **options) as window:
        page = window.page
        for path in paths(furnished):
            window.go(path)
            assert page.locator("h1").count() == 1
        window.go(f"/dead?id={sent[0]}")
        page.locator("#why").fill("no scripts here")
        page.get_by_role("button", name="Preview").click()
        page.get_by_role("button", name="Replay", exact=True).click()
        eventually(lambda: _reloaded(page) and "ended" in page.inner_text("h2 >> nth=0"), 30)
        assert sent[0] not in {one["id"] for one in furnished.dead()}
        assert sent[1] in {one["id"] for one in furnished.dead()}


def _reloaded(page: Page) -> bool:
    page.reload()
    return True


def test_every_dead_letter_is_only_meant_where_that_is_said(
    furnished: Furnished, window: Window
) -> None:
    furnished.park(1)
    count = len(furnished.dead())
    page = window.page
    window.go("/dead")
    page.locator("#why").fill("all of them")
    page.get_by_role("button", name="Preview").click()
    assert "Tick at least one message" in window.text()
    page.go_back()
    page.locator("input[name=scope][value=all]").check()
    page.locator("#why").fill("all of them")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Replay", exact=True).click()
    # The browser asks for the tick; nothing is sent.
    assert "Preview of a replay" in window.text()
    assert len(furnished.dead()) == count


def test_the_pictures_of_the_docs_are_there_and_small(
    furnished: Furnished, browser: Browser
) -> None:
    """Written by `make docs`; what they show differs in ids and times from run to run."""
    folder = REPOSITORY / "docs" / "operations" / "console"
    text = folder.with_suffix(".md").read_text(encoding="utf-8")
    if os.environ.get("ECS_WRITE_DOCS"):
        folder.mkdir(exist_ok=True)
        _take_pictures(furnished, browser, folder)
    pictures = {one.name: one.read_bytes() for one in sorted(folder.glob("*"))}
    assert set(re.findall(r"\]\(console/([\w.-]+)\)", text)) == set(pictures)
    for name, content in pictures.items():
        assert content.startswith(b"\x89PNG"), name
        assert len(content) < 150_000, name


def _take_pictures(furnished: Furnished, browser: Browser, folder: Path) -> None:
    furnished.park(6)
    gateway = furnished.site.gateway
    wide = {"viewport": {"width": 1180, "height": 900}, "color_scheme": "light"}
    narrow = {"viewport": {"width": 400, "height": 860}, "color_scheme": "dark", "locale": "zh-CN"}
    with entered(browser, gateway, "alice", **wide) as window:
        window.go("/")
        window.page.screenshot(path=folder / "overview-en.png")
        window.go(f"/request?key={furnished.order}")
        window.page.screenshot(path=folder / "request-en.png")
        window.go("/dead")
        window.page.locator("th a.id").first.click()
        window.page.locator("#why").fill("they were read too late")
        window.page.get_by_role("button", name="Preview").click()
        window.page.screenshot(path=folder / "preview-en.png")
    with entered(browser, gateway, "alice", **narrow) as window:
        window.go(f"/request?key={furnished.order}")
        window.page.screenshot(path=folder / "narrow-zh.png")


def test_a_gateway_whose_broker_or_journal_is_away_says_so(furnished: Furnished) -> None:
    with gateways(furnished.site.workshop) as start:
        gateway = start(
            wait=False,
            ECS_BROKER_URL="amqp://guest:guest@127.0.0.1:1//",
            ECS_JOURNAL_URL=f"sqlite:///{furnished.site.workshop.folder}/none-{uuid.uuid4().hex}.db",
        )
        eventually(lambda: _serves(gateway.url), 30)
        # Nobody is in; the page says how to get in.
        assert requests.get(f"{gateway.url}/console/", timeout=30).status_code == 401


def _serves(url: str) -> bool:
    try:
        return requests.get(f"{url}/livez", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False
