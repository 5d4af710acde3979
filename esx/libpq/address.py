"""Parses and builds the texts that name a database: URLs, keywords and names.

Nothing is looked up here, and no message has what may be a part of a password.
"""

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlencode

from esx.libpq.parameters import BY_KEYWORD, FOREIGN, KNOWN_SETTINGS, RENAMED, SECRETS
from esx.text import visible

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*)(?:\+[A-Za-z0-9_.-]+)?://")
_POSTGRESQL = re.compile(r"\s*(?:jdbc:)?postgres(?:ql)?(?:\+[\w.-]+)?://", re.IGNORECASE)
_KEYWORD = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:\\.|[^'\\])*)'(?=\s|$)|((?:\\.|[^\s'\\])(?:\\.|[^\s\\])*|))", re.DOTALL)
_MASKED = r"(?i)(\w*(?:pass|pasw|pwd|secret|scram)\w*\s*=)"
_BOOLEAN_MODES = dict.fromkeys(("true", "1", "on"), "require") | dict.fromkeys(("false", "0", "off"), "disable")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# The characters of IPv6 addresses and of names of machines; no resolver finds other names.
_HOST = re.compile(r"[\w.:%-]*|/[^\n]*")


# What `label` makes. No user has a : and no database an @, as it might be a URL with a password that lost a part.
_NAMES = r"(?:[\w.%-]+|\[[\w.:%]+\])"
_LABEL = re.compile(
    rf"(?:(?P<user>[^/:\s\[\]]+)@)?"
    rf"(?:(?P<host>{_NAMES}(?:,{_NAMES})*|/[^@:?#=]*?)(?::(?P<port>[\d,]+))?(?:/(?P<dbname>[^/@:?#=]*?))"
    rf"|(?P<host_>{_NAMES}(?:,{_NAMES})*|/[^@:?#=]*?):(?P<port_>[\d,]+))"
    rf"(?: \(service (?P<service>[\w.-]+)\))?"
)


class Odd(Exception):
    """What is wrong with a text, to follow the text in a message. It never has a part that may be a password."""


def parse(text: str) -> dict[str, str]:
    """Return the parameters in a text, by libpq's names; other names are settings of the session, or foreign.

    The text is a URL (also with a driver, ``postgresql+psycopg://``, as SQLAlchemy writes it), libpq's keywords
    (``host=localhost dbname=x``), the name of a database, as for ``psql -d``, or what `label` has made. An empty value
    stands for the default. Raises Odd.
    """
    text = text.strip()
    if match := _SCHEME.match(text):
        if match[1].lower() not in ("postgresql", "postgres"):
            raise Odd("is not PostgreSQL")
        return checked(_from_url(text[match.end() :]))
    if "=" in text and "://" not in text.partition("=")[0]:
        return checked(_from_keywords(text))
    if text.isprintable() and (match := _LABEL.fullmatch(text)):
        return checked(_from_label(match))
    if re.search(r"[\s:/@?#]", text) or not text.isprintable():
        raise Odd("is not understood")
    return checked({"dbname": text})


def label(given: Mapping[str, str], service: str | None, default_host: str) -> str:
    """Return ``user@host:port/database`` for messages, without a password; `parse` takes it back."""
    host = given.get("host") or given.get("hostaddr") or default_host
    user, port, database = (given.get(key, "") for key in ("user", "port", "dbname"))
    database = database or user
    host = ",".join(f"[{each}]" if ":" in each and each[:1] != "/" else each for each in host.split(","))
    where = f"{host}:{port}" if port.strip(",") else host
    # The last part of a directory is no database.
    tail = f"/{database}" if database else "/" if where == host and host.startswith("/") else ""
    text = f"{user + '@' if user else ''}{where}{tail}"
    return f"{text} (service {service})" if service else text


def _from_label(match: re.Match[str]) -> dict[str, str]:
    given = {key.rstrip("_"): value for key, value in match.groupdict().items() if value}
    if "host" in given and given["host"][:1] != "/":
        given["host"] = given["host"].replace("[", "").replace("]", "")
    return given


def _from_url(rest: str) -> dict[str, str]:
    """Take apart what follows ``postgresql://``."""
    if "#" in rest:
        raise Odd("has a # that must be written %23")
    match = re.match(r"([^/?]*)(?:/([^?]*))?(?:\?(.*))?", rest, re.DOTALL)
    assert match is not None
    network, path, query = match[1], match[2] or "", match[3]
    # libpq would take the text after an unescaped @ for a host, and ask the DNS for the rest of a password.
    if "@" in path or (":" in network and "@" in (query or "")):
        raise Odd("has an @ behind its host, or a / or ? in its password that must be written %2F or %3F")
    account, _, hosts = network.rpartition("@")
    user, _, password = account.partition(":")
    names: list[str] = []
    ports: list[str] = []
    for each in hosts.split(",") if hosts else ():
        found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(\d*))?", each)
        if found is None:
            raise Odd("has a malformed host or port")
        names.append(_decoded(found[1].strip("[]")))
        ports.append(found[2] or "")
    given = {
        "user": _decoded(user, spaces=False),
        "password": _decoded(password, spaces=False),
        "host": ",".join(names),
        # As libpq does: where there are several hosts, none takes its port from elsewhere.
        "port": ",".join(ports) if any(ports) or len(ports) > 1 else "",
        "dbname": _decoded(path),
    }
    return {key: value for key, value in given.items() if value} | _query(query, secret=bool(password))


def _query(query: str | None, *, secret: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Odd("has a malformed parameter after the ?")
        key = _decoded(name)
        key = RENAMED.get(key, key)
        if key not in BY_KEYWORD and key not in FOREIGN:
            if not re.fullmatch(r"[A-Za-z_][\w.$]*", key):
                raise Odd("has a malformed parameter after the ?")
            if secret and key.lower() not in KNOWN_SETTINGS:
                raise Odd(
                    "has a parameter behind its password that is not one of libpq's: in a password, & must be written "
                    "%26; put other settings before it"
                )
        secret = secret or key in SECRETS
        found[key] = _decoded(value, spaces=key not in SECRETS)
    return found


def _decoded(text: str, *, spaces: bool = True) -> str:
    if not spaces and re.search(r"\s", text):
        raise Odd("has a space that must be written %20")
    if _BAD_ESCAPE.search(text):
        raise Odd("has a % that must be written %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Odd("has a % escape that is not UTF-8") from None


def _from_keywords(text: str) -> dict[str, str]:
    """Take apart libpq's ``keyword=value`` pairs, where values may be quoted and have escapes."""
    given: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _KEYWORD.match(text, at)
        if match is None or match.end() == at:
            raise Odd("is not a list of keyword=value")
        key = match[1].lower()
        key = RENAMED.get(key, key)
        if key not in BY_KEYWORD and key not in FOREIGN:
            # In a password without quotes, a part of it may look like a keyword.
            name = "a parameter" if "password" in given else f"the parameter {visible(key, limit=40)}"
            raise Odd(f"has {name} that PostgreSQL does not know")
        value = match[2] if match[2] is not None else match[3]
        given[key] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        at = match.end()
    return given


def checked(given: dict[str, str]) -> dict[str, str]:
    """Return the parameters after a check of those that are looked up and shown. Raises Odd."""
    if "sslmode" in given:
        mode = given["sslmode"]
        given["sslmode"] = _BOOLEAN_MODES.get(mode.lower(), mode)
    if any("\0" in value for value in given.values()):
        raise Odd("has a zero byte")
    port = given.get("port", "")
    if not all(0 < int(each) < 65536 if each.isascii() and each.isdigit() else not each for each in port.split(",")):
        raise Odd("has a port that is not a number from 1 to 65535")
    names = [given.get("user", ""), given.get("host", ""), given.get("hostaddr", ""), given.get("dbname", "")]
    if any(re.search(r"[;=]", each) for each in names):
        raise Odd("has a ; or = where none belongs")  # from the syntax of other databases, such as Password=...
    if any("://" in each for each in names):
        raise Odd("has an address where a name belongs")
    for key in ("host", "hostaddr"):
        if not all(_HOST.fullmatch(each.strip()) for each in given.get(key, "").split(",")):
            raise Odd(f"has a {key} that cannot be the name of one")
    hosts = _list(given, "host") or _list(given, "hostaddr")
    addresses = _list(given, "hostaddr")
    if addresses and len(addresses) != len(hosts):
        raise Odd("has not as many addresses as hosts")
    if len(port.split(",")) not in (1, max(len(hosts), 1)):
        raise Odd("has not as many ports as hosts")
    return given


def _list(given: Mapping[str, str], key: str) -> list[str]:
    return given[key].split(",") if given.get(key) else []


def url(given: Mapping[str, str]) -> str:
    """Return the URL that gives these parameters, as `parse` returned them."""
    left = dict(given)
    host, port = left.pop("host", ""), left.pop("port", "")
    where = ""
    if "host" in given and (not host or host.startswith("/") or "," in host):
        left["host"] = host  # a socket or several hosts cannot be the host of a URL
    elif host:
        where = f"[{host}]" if ":" in host else quote(host, safe="")
    if "," in host and port:
        port = ",".join(each or "5432" for each in port.split(","))
    if where and port:
        where += f":{port}"
    elif port:
        left["port"] = port
    user, password = left.pop("user", ""), left.pop("password", "")
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    database = left.pop("dbname", "")
    path = f"/{quote(database, safe='')}" if database else ""
    # Other settings come first: after a password they would be taken for a part of it.
    query = sorted(left.items(), key=lambda item: item[0] in BY_KEYWORD)
    tail = f"?{urlencode(query, quote_via=quote, safe='/,')}" if query else ""
    return f"postgresql://{who}{'@' if who else ''}{where}{path}{tail}"


def without_password(text: str) -> str:
    """Return a text that names a database, even a malformed one, with ``***`` instead of passwords."""
    try:
        given = parse(text)
    except Odd:
        return _masked(text, broken=True)
    return _masked(text, broken=False) if given.keys() & SECRETS else text


def _masked(text: str, *, broken: bool) -> str:
    # Without quotes the end of a password is unknown.
    masked = re.sub(_MASKED + ".*", r"\1***", text, count=1, flags=re.DOTALL)
    if re.match(r"\s*(?:jdbc:)?(?:[\w+.-]+:)?//", text):
        # Up to the last @, as a password may have an unescaped @. Without an @, the text after a : may be a password
        # whose host is missing.
        if "@" in masked:
            if broken and not _POSTGRESQL.match(text):
                # The scheme may be a user, and the text after the // a password: u://secret@host.
                masked = re.sub(r"//[^:@]*@", "//***@", masked)
            return re.sub(r"(//[^:@]*:).*@", r"\1***@", masked, flags=re.DOTALL)
        return re.sub(r"(//[^:@\[]*:)(?!\d*(?:[,/?]|$)).*", r"\1***", masked, flags=re.DOTALL)
    if broken and masked == text:
        masked = re.sub(r":.*@", ":***@", text, flags=re.DOTALL)
        if "=" in masked:  # a word without a keyword may be a password that lost it
            masked = re.sub(r"(?<=\s)(?<!=\s)[^\s='\"]+(?=\s+[^\s=]|$)", "***", masked)
    return masked
