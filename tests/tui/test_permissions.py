"""What an explorer in a browser may do: it reads the store that it shows, and what else was switched on."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from textual.app import App
from textual.screen import Screen

import esx.tui
from esx.config import Config, Connection
from esx.errors import EsxError
from esx.permissions import NEEDS, Permissions
from esx.tui import keymap
from esx.tui.app import Explorer
from esx.tui.palette import Actions
from esx.tui.screens.load import LoadPane
from tests.tui.helpers import explorer, text_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterator

    from textual.dom import DOMNode

    from esx.load.model import LoadOptions, LoadProgress, LoadSummary

pytestmark = pytest.mark.slow

NOTHING = Permissions.only()
_NAMES = [field.name for field in fields(Permissions)]

_READING = """
    agree.close agree.quit app.add_class app.back app.bell app.change_theme app.command_palette app.consumers
    app.copy_as app.faster app.feed app.focus app.focus_next app.focus_previous app.health app.help
    app.help_quit app.hide_help_panel app.jump app.load app.notify app.play app.pop_screen app.push_screen
    app.quit app.quit-anywhere app.remove_class app.retry app.screen app.show_help_panel app.simulate_key
    app.slower app.step app.step-back app.streams app.switch_mode app.switch_screen app.toggle app.toggle_class
    app.toggle_dark app.types ask-line.earlier ask-line.history ask-line.later ask-line.leave bookmark.close
    bookmarks.close bookmarks.copy bookmarks.down bookmarks.quit bookmarks.up choice.next choice.previous
    choice.turn conflicts.close conflicts.quit conflicts.refresh connections.close connections.down
    connections.quit connections.up consumer-actions.close consumer-actions.down consumer-actions.quit
    consumer-actions.up consumers.refresh copy.close copy.down copy.quit copy.up detail.copy detail.diff
    detail.state detail.version-back detail.version-on dialog.close event-list.all event-list.find
    event-list.flip event-list.go event-part.back event-part.copy event-part.diff event-part.search
    event-part.state event-part.version event-part.version-back event-part.version-on event.a-level-less
    event.a-level-more event.copy_path event.copy_value event.down event.end event.fold event.fold-all
    event.fold_here event.line event.match event.next-match event.page event.page-down event.page-up
    event.previous-match event.start event.text event.unfold event.up events.all events.find events.flip
    events.go export.cancel feed-detail.copy feed-detail.diff feed-detail.state feed-detail.version-back
    feed-detail.version-on feed-list.choose feed.back feed.close_detail feed.filter feed.focus_detail
    feed.focus_list feed.pause feed.retry fields.close health.conflicts health.refresh health.remedy help.close
    help.down help.end help.leave help.page-down help.page-up help.quit help.scroll_by help.scroll_page
    help.search help.start help.up jump.close list.choose list.down list.first list.last list.move list.page
    list.page-down list.page-up list.up load-compared.down load-compared.up load-form.field-before
    load-form.next load-form.next-field load-runs.compare load-runs.mark load-sweep.down load-sweep.up load.edit
    load.form load.leave_field load.runs load.stop paged-list.first paged-list.last paged-list.move
    paged-list.page pair.focus_detail pair.focus_list pane.mentions pane.panel pane.summary pane.trail
    parts.higher parts.lower parts.narrower parts.resize parts.wider parts.zoom path-list.choose
    path-list.copy_path remedy.close remedy.copy remedy.quit screen.blur screen.copy_text screen.dismiss
    screen.focus screen.maximize screen.minimize screen.notify screen.page_down screen.page_left
    screen.page_right screen.page_up screen.scroll_down screen.scroll_end screen.scroll_home screen.scroll_left
    screen.scroll_right screen.scroll_up screen.toggle scrolled-text.scroll_by step.close step.quit
    stream-list.categories stream-list.collapse stream-list.expand stream-list.filter stream-list.sort
    streams.back streams.categories streams.filter streams.focus_panel streams.part-to-the-left
    streams.part-to-the-right streams.refresh streams.sort summary-list.choose summary.back summary.find
    summary.refresh summary.step summary.summary summary.window-after summary.window-before trail-detail.copy
    trail-detail.diff trail-detail.state trail-detail.version-back trail-detail.version-on trail-table.choose
    trail.back trail.focus_detail trail.focus_list trail.more trail.order trail.refresh type-list.choose
    types.back types.filter types.focus_detail types.focus_list types.more types.refresh types.sort
"""
READING = frozenset(_READING.split())
"""Actions that only read, move, copy to the user's own clipboard, or close something."""
COMMANDS = frozenset({"Theme", "Maximize", "Minimize"})
"""Textual's own entries of the palette that only change how things look."""


def classes() -> Iterator[type[Any]]:
    """Yield every class of the explorer that has actions."""
    for module in pkgutil.walk_packages(esx.tui.__path__, "esx.tui."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__.startswith("esx.tui."):
                yield kind


def actions() -> set[str]:
    """Return every action by the name of its class: those with keys, and those that are called otherwise."""
    found = set(keymap.actions())
    for kind in classes():
        found |= {f"{keymap.prefix_of(kind)}.{name[7:]}" for name in vars(kind) if name.startswith("action_")}
    # Textual's own actions, which the explorer and its screens inherit.
    for kind, part in ((App, "app"), (Screen, "screen")):
        found |= {f"{part}.{name[7:]}" for name in dir(kind) if name.startswith("action_")}
    return found


def test_every_action_is_classified() -> None:
    """A new action belongs to READING above, or, with the permission that it needs, to esx.permissions.NEEDS."""
    assert actions() - READING == set(NEEDS)
    assert not READING & set(NEEDS)
    assert not READING - actions()
    assert set(NEEDS.values()) <= set(_NAMES)


def test_what_the_environment_says() -> None:
    assert Permissions.of({}) == Permissions()
    assert Permissions.of({"ESX_SERVED": ""}) == NOTHING
    assert Permissions.of({"TEXTUAL_DRIVER": "somebody:Elses"}) == NOTHING, "another server may show it to anyone"
    for name in ("load", "export", "reducer", "connections"):
        only = Permissions.only(name)
        assert [each for each in _NAMES if getattr(only, each)] == [name]
        assert Permissions.of({"ESX_SERVED": str(only)}) == only
        assert only.served
    assert Permissions.of({"ESX_SERVED": "terminal, load,Export"}) == NOTHING
    assert not Permissions().served


def _run_load(_dsn: str | None, _options: LoadOptions) -> AsyncIterable[LoadProgress | LoadSummary]:
    raise AssertionError("a load test was started")


def offered(app: Explorer) -> set[str]:
    """Return the actions that keys, footer, help and palette offer here, by the names that NEEDS has."""
    found = set()
    for active in app.screen.active_bindings.values():
        for kind in type(active.node).__mro__:
            found.add(f"{keymap.prefix_of(kind)}.{active.binding.action.partition('(')[0]}")
    return found & set(NEEDS)


def nodes(app: Explorer) -> list[DOMNode]:
    return [app, app.screen, *app.screen.walk_children()]


@pytest.mark.parametrize("allowed", ["", "load", "export", "connections", "reducer"])
async def test_what_is_not_allowed_is_not_offered_and_not_done(dsn18: str, allowed: str) -> None:
    permissions = Permissions.only(allowed)
    config = Config(connections={"other": Connection("other", "postgresql://127.0.0.1:1/x")})
    async with explorer(dsn18, permissions=permissions, config=config, run_load=_run_load) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: app.query(LoadPane) and app.query(LoadPane).first().ready, "for the screen Load")
        may = {name for name, need in NEEDS.items() if need == allowed}
        elsewhere = {"app.screenshot", "consumer-list.choose", "agree.agree", "load.clean", "bookmarks.remove"}
        assert offered(app) == may - elsewhere, "the first has no key, the others are for another screen"
        titles = {command.title for command in app.get_system_commands(app.screen)}
        for title, need in (
            ("Show another database", "connections"),
            ("Export what is shown to a file, as NDJSON", "export"),
            ("Screenshot", "export"),
            ("Start the load test that the form describes", "load"),
        ):
            assert (title in titles) == (need == allowed), title
        # By name, as a footer's click and a link in a text do it, on every part that there is.
        for name in set(NEEDS) - may:
            action = name.partition(".")[2]
            for node in nodes(app):
                if any(f"{keymap.prefix_of(kind)}.{action}" == name for kind in type(node).__mro__):
                    assert not await app.run_action(action, node), (name, node)
            assert not await app.run_action(f"app.{action}") or name.startswith("load.")
        if "load" not in may and allowed != "load":
            start = app.query_one("#load-start")
            assert start.disabled
            app.query(LoadPane).first().action_start()
        for key in ("e", "ctrl+o", "ctrl+s", "ctrl+z"):
            before = len(app.screen_stack)
            if not (key == "ctrl+o" and allowed == "connections") and not (key == "ctrl+s" and allowed == "load"):
                await pilot.press("1" if key == "e" else "3")
                if not (key == "e" and allowed == "export"):
                    await pilot.press(key)
                    await pilot.pause()
                    assert len(app.screen_stack) == before, (key, text_of(app))


async def test_no_palette_command_is_unclassified(dsn18: str) -> None:
    async with explorer(dsn18, permissions=NOTHING) as (app, pilot):
        assert {Actions} == Explorer.COMMANDS
        for key in "1234":
            await pilot.press(key)
            await pilot.pause()
            keys = {each.binding.tooltip or each.binding.description for each in app.screen.active_bindings.values()}
            others = {command.title for command in app.get_system_commands(app.screen)} - keys
            assert others <= COMMANDS


async def test_sessions_only_read_even_if_the_config_says_otherwise(dsn18: str) -> None:
    from esx.model import NewEvent

    for permissions, writes in ((NOTHING, False), (Permissions.only("export", "connections"), False),
                                (Permissions.only("load"), True), (Permissions(), True)):  # fmt: skip
        async with explorer(dsn18, read_only=False, permissions=permissions, connected=False) as (app, pilot):
            await until(pilot, lambda app=app: app.session.store is not None, "for a connection")  # type: ignore[misc]
            store = app.session.store
            assert store is not None
            if writes:
                await store.append(f"by-{permissions}", [NewEvent("Written")])
            else:
                with pytest.raises(EsxError):
                    await store.append("by-a-visitor", [NewEvent("Written")])


async def test_messages_do_not_point_to_what_is_not_allowed(dsn18: str) -> None:
    nowhere = dsn18.replace("/test_", "/not_there_")
    for permissions in (NOTHING, Permissions()):
        async with explorer(nowhere, connected=False, permissions=permissions) as (app, pilot):
            await until(pilot, lambda app=app: "tries now" in text_of(app), "for the message")  # type: ignore[misc]
            assert ("other connections" in text_of(app)) == permissions.connections
