"""The explorer's side of a recording: its clock, and what is read anew when that jumps."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from esx.config import Config
from esx.database_choice import Database
from esx.fold.reducer import Reducer
from esx.payloads.decoder import Decoder
from esx.permissions import Permissions
from esx.text import tell_ages_by
from esx.tui.places import PlacesApp
from esx.tui.screens.base import StorePane
from esx.tui.tasks import start
from esx.tui.tuning import Tuning
from esx.tui.widgets.recordingbar import RecordingBar

if TYPE_CHECKING:  # most explorers show none
    from esx.capsule.opening import Recording
    from esx.capsule.player import Player

_KEYS = ("play", "step", "faster", "jump")
_OF_OTHERS = ("connections", "bookmark", "bookmarks")


class RecordedApp(PlacesApp):
    """Shows a recording in place of a store, if there is one: then all times are those of its clock."""

    KEYMAP_PREFIX = "app"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("P", "play", "Play", show=False, tooltip="Let the clock of the recording go, or stop it"),
        Binding("full_stop", "step(True)", "Step", show=False, tooltip="To the next event of the recording"),
        Binding("comma", "step(False)", "Step back", show=False, tooltip="To the event before"),
        Binding("right_parenthesis", "faster(1)", "Faster", show=False, tooltip="Let the recorded clock go faster"),
        Binding("left_parenthesis", "faster(-1)", "Slower", show=False, tooltip="Let the recorded clock go slower"),
        Binding("at", "jump", "Jump", show=False, tooltip="Go to a time of the recording"),
    ]

    def __init__(
        self,
        database: Database,
        config: Config,
        *,
        reducer: Reducer,
        decoder: Decoder | None,
        permissions: Permissions,
        tuning: Tuning,
        recording: Recording | None = None,
    ) -> None:
        if recording is not None:
            tuning = replace(tuning, clock=recording.player.seconds)
        super().__init__(
            database,
            config,
            reducer=reducer,
            decoder=decoder,
            permissions=permissions,
            tuning=tuning,
            connect=None if recording is None else recording.connect,
        )
        self.recording = recording
        """The recording that is shown."""

    @property
    def _player(self) -> Player | None:
        return None if self.recording is None else self.recording.player

    def compose_recording(self) -> ComposeResult:
        """Lay out the line of the recorded clock."""
        if self._player is not None:
            yield RecordingBar(self._player)

    def begin_recording(self) -> None:
        """Let the recorded clock begin."""
        if self._player is not None:
            tell_ages_by(self._player.now)
            self._player.jumped = self._jumped
            start(self, self._player.run, "play")

    def end_recording(self) -> None:
        """Tell ages by this machine's clock again."""
        if self._player is not None:
            tell_ages_by(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what a recording has, and nothing that is for a database that stays."""
        if action in _KEYS:
            return self.recording is not None
        if action in _OF_OTHERS and self.recording is not None:
            return False
        return super().check_action(action, parameters)

    def _jumped(self) -> None:
        """Show what was at another time."""
        self.follower.restart()
        for pane in self.main.query(StorePane):
            if pane.ready:
                pane.jumped()
        self.tell_state()

    def _move(self, move: Callable[[], Coroutine[Any, Any, None]]) -> None:
        start(self, move, "jump")

    def action_play(self) -> None:
        """Let the recorded clock go, or stop it."""
        if self._player is not None:
            self._player.play()

    def action_faster(self, by: int) -> None:
        """Let the recorded clock go faster, or slower."""
        if self._player is not None:
            self._player.faster(by)

    def action_step(self, forth: bool) -> None:
        """Go to the next event of the recording, or to the one before."""
        if self._player is not None:
            self._move(partial(self._player.step, forth))

    @on(RecordingBar.Wanted)
    def _wanted(self, message: RecordingBar.Wanted) -> None:
        if self._player is not None:
            self._move(partial(self._player.jump, message.at))

    def action_jump(self) -> None:
        """Go to a time of the recording."""
        player = self._player
        if player is None:
            return
        from esx.capsule.places import parse_time
        from esx.tui.dialogs.jump import Jump

        def chosen(at: datetime | None) -> None:
            if at is not None:
                self._move(partial(player.jump, at))

        self.push_screen(Jump(lambda text: parse_time(text, player.timeline, player.at)), chosen)
