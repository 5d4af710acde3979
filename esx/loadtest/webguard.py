"""Who may use Locust's web UI, which starts tests that write, and what may be set there.

Locust itself admits every request to the port, answers pages of every site, and lets a form overwrite any option. Here
a request needs the token of the printed address, and a form may set only what it shows.
"""

# Flask's decorators have no types here.
# mypy: disable-error-code="untyped-decorator"
import argparse
import json
import os
import sys
import webbrowser
from urllib.parse import urlsplit

from flask import Response, request
from locust.argument_parser import LocustArgumentParser, ui_extra_args_dict
from locust.env import Environment

from esx.text import visible
from esx.web.guard import EVERYWHERE, HEADERS, Asked, Guard, Welcomed, address_of, is_loopback, token_of

_LOOPBACK = "127.0.0.1"
_FORM = frozenset({"user_count", "spawn_rate", "run_time", "host", "profile", "user_classes", "shape_class"})
"""The fields of Locust's own form. The form also shows options of the scenario."""
_OF_A_CLASS = frozenset({"user_class_name", "host", "weight", "fixed_count", "tasks"})
"""What Locust's page may set of a user class."""


def listen_here_only(parser: LocustArgumentParser) -> None:
    """Listen on this machine only, with the web UI and the master's port, unless options say otherwise."""
    parser.set_defaults(web_host=_LOOPBACK, master_bind_host=_LOOPBACK)


def close(environment: Environment) -> None:
    """Admit only requests with the token, and print the address with it. Raises EsxError.

    Call it before the web UI listens.
    """
    ui, options = environment.web_ui, environment.parsed_options
    if ui is None or ui.app is None or options is None:
        return
    if not options.web_host:  # a variable that is empty counts as unset
        ui.host = _LOOPBACK
    display = options.web_host_display_name or ""
    public = [urlsplit(display if "//" in display else f"//{display}").netloc] if display else []
    guard = Guard(ui.host, token_of(os.environ), cookie=f"esx_locust_{ui.port}", public=public)
    tls = bool(ui.tls_cert and ui.tls_key)

    def add_headers(response: Response) -> Response:
        for name in [name for name in dict(response.headers) if name.lower().startswith("access-control-")]:
            del response.headers[name]
        response.headers.update(HEADERS)
        # With no-referrer, browsers would not send the origin of the login page's form.
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    # Flask calls the last of these first. Locust's own function allows every site to read the answers.
    ui.app.after_request_funcs.setdefault(None, []).insert(0, add_headers)

    @ui.app.before_request
    def let_in() -> Response | None:
        verdict = guard.judge(Asked.by(request, request.host, request.args))
        if isinstance(verdict, Welcomed):
            welcome = Response(status=303, headers={"Location": verdict.location})
            welcome.set_cookie(verdict.cookie, verdict.token, path="/", httponly=True, samesite="Strict", secure=tls)
            return welcome
        if verdict is not None:
            return Response(verdict.text, verdict.status, mimetype="text/plain")
        return _check_form()

    if ui.host in EVERYWHERE or not is_loopback(ui.host):
        _say(
            f"warning: --web-host lets other machines in: every user who has the token can start tests, which write as "
            f"you, and without --tls-cert the token can be read on the way (port {ui.port})"
        )
    base = f"http{'s' if tls else ''}://{address_of(ui.host, ui.port)}{options.web_base_path or '/'}"
    # Not in the log, which the page shows and which may be kept.
    _say(f"the web UI is at {base}?token={guard.token}")
    _open_with_token(f"{base}?token={guard.token}")


def warn_of_master(options: argparse.Namespace) -> None:
    """Warn if other machines reach the master's port."""
    if options.master_bind_host in EVERYWHERE or not is_loopback(options.master_bind_host):
        _say(
            f"warning: --master-bind-host lets other machines reach port {options.master_bind_port}: "
            "each can be a worker, which receives the database with its password"
        )


def _check_form() -> Response | None:
    """Refuse a form that would set more than the page shows."""
    if request.endpoint == "locust.swarm":
        refused = sorted(set(request.form) - _FORM - ui_extra_args_dict().keys())
    elif request.endpoint == "locust.update_user":
        try:
            settings = json.loads(request.get_data())
        except (ValueError, RecursionError):
            settings = None
        refused = sorted(settings.keys() - _OF_A_CLASS) if isinstance(settings, dict) else ["what is no JSON object"]
    else:
        return None
    if not refused:
        return None
    return Response(
        f"{visible(', '.join(refused), limit=200)} cannot be set from a page: give it on the command line\n",
        400,
        mimetype="text/plain",
    )


def _open_with_token(address: str) -> None:
    """Let Locust's key that opens the browser use the address with the token."""
    opened = webbrowser.open_new_tab
    webbrowser.open_new_tab = lambda url: opened(address)  # noqa: ARG005 - its name is part of the function


def _say(text: str) -> None:
    print(f"esx: {text}", file=sys.stderr, flush=True)
