"""The files of TLS: which are used, the checks of them, and the TLS context."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from esx.libpq.parameters import SSLMODES, BadParameter
from esx.text import visible

_VERSIONS = {
    "tlsv1": ssl.TLSVersion.TLSv1,
    "tlsv1.1": ssl.TLSVersion.TLSv1_1,
    "tlsv1.2": ssl.TLSVersion.TLSv1_2,
    "tlsv1.3": ssl.TLSVersion.TLSv1_3,
}
_SYSTEM = "system"
_ROOT = 0


@dataclass(frozen=True, slots=True)
class Files:
    """The files and options of a TLS connection. Named files are known to exist."""

    mode: str
    root: str | None = None
    """A file, or ``system``; None: the server's certificate is not checked."""
    crl: str | None = None
    crl_directory: str | None = None
    certificate: str | None = None
    key: str | None = None
    key_password: str = field(default="", repr=False)
    minimum: str | None = None
    maximum: str | None = None
    direct: bool = False

    @property
    def strict(self) -> bool:
        """Whether a connection needs TLS."""
        return SSLMODES.index(self.mode) >= SSLMODES.index("require")

    @classmethod
    def find(cls, mode: str, at: Mapping[str, str], where: Callable[[str], str], home: Path | None) -> Files:
        """Return the files to use. Raises BadParameter for a missing or unsuitable one."""
        if mode == "disable":
            return cls(mode)
        folder = None if home is None else home / ".postgresql"
        sending = at.get("sslcertmode") != "disable"
        certificate = _file(at, "sslcert", where, folder, "postgresql.crt") if sending else None
        key = None
        if certificate is not None:
            key = _file(at, "sslkey", where, folder, "postgresql.key")
            if key is None:
                raise BadParameter(
                    f"certificate {visible(certificate, limit=300)} has no private key: name its file with sslkey"
                )
            _check_key(key, where("sslkey"))
        strict = SSLMODES.index(mode) >= SSLMODES.index("require")
        default = None if folder is None else folder / "postgresql.crt"
        if not sending and not strict and ("sslcert" in at or (default is not None and default.exists())):
            raise BadParameter(
                f"{where('sslcertmode')} is disable, which is not honoured with sslmode={mode}: use sslmode=require or "
                "stricter"
            )
        root = _root(mode, at, where, folder) if strict else None
        directory = at.get("sslcrldir") if root is not None else None
        if directory is not None and not Path(directory).is_dir():
            raise BadParameter(f"{where('sslcrldir')} names {visible(directory, limit=300)}, which is no directory")
        return cls(
            mode,
            root=root,
            crl=_file(at, "sslcrl", where, folder, "root.crl") if root is not None else None,
            crl_directory=directory,
            certificate=certificate,
            key=key,
            key_password=at.get("sslpassword", ""),
            minimum=at.get("ssl_min_protocol_version"),
            maximum=at.get("ssl_max_protocol_version"),
            direct=at.get("sslnegotiation") == "direct",
        )

    def parameters(self) -> dict[str, str]:
        """Return parameters for an address for asyncpg, for the modes in which TLS is optional."""
        all_of_them = {
            "sslmode": self.mode,
            "sslcert": self.certificate,
            "sslkey": self.key,
            "sslpassword": self.key_password,
            "ssl_min_protocol_version": _named(self.minimum),
            "ssl_max_protocol_version": _named(self.maximum),
        }
        return {key: value for key, value in all_of_them.items() if value}

    def context(self, name: str | None) -> ssl.SSLContext:
        """Return the context for a strict mode; `name` is the name for the certificate, if it is not the host.

        Raises BadParameter.
        """
        made = _Context(ssl.PROTOCOL_TLS_CLIENT)
        made.expected = name
        made.check_hostname = self.mode == "verify-full"
        made.verify_mode = ssl.CERT_NONE if self.root is None else ssl.CERT_REQUIRED
        if self.root == _SYSTEM:
            made.load_default_certs()
        elif self.root is not None:
            _load("sslrootcert", self.root, lambda: made.load_verify_locations(cafile=self.root))
        if self.crl is not None or self.crl_directory is not None:
            _load(
                "sslcrl",
                self.crl or self.crl_directory or "",
                lambda: made.load_verify_locations(cafile=self.crl, capath=self.crl_directory),
            )
            made.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        if self.certificate is not None:
            certificate = self.certificate
            # With a function OpenSSL does not ask for a password at the terminal.
            _load(
                "sslcert or sslkey",
                certificate,
                lambda: made.load_cert_chain(certificate, keyfile=self.key, password=lambda: self.key_password),
            )
        made.minimum_version = _VERSIONS[(self.minimum or "TLSv1.2").lower()]
        if self.maximum:
            made.maximum_version = _VERSIONS[self.maximum.lower()]
        if ssl.HAS_ALPN:
            made.set_alpn_protocols(["postgresql"])
        return made


class _Context(ssl.SSLContext):
    """A context that checks the certificate for the name `expected`, if there is one."""

    expected: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.expected or server_hostname, session)


def _load(parameter: str, path: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise BadParameter(f"{parameter} {visible(path, limit=300)} cannot be used: {visible(str(reason))}") from None


def _named(version: str | None) -> str | None:
    return None if version is None else _VERSIONS[version.lower()].name.replace("_", ".")


def _file(
    at: Mapping[str, str], key: str, where: Callable[[str], str], folder: Path | None, default: str
) -> str | None:
    named = at.get(key)
    if named is None:
        path = None if folder is None else folder / default
        return str(path) if path is not None and path.exists() else None
    try:
        with Path(named).open("rb"):
            return named
    except OSError as error:
        raise BadParameter(
            f"{where(key)} names {visible(named, limit=300)}, which cannot be read: {error.strerror}: name a file that "
            "can"
        ) from None


def _root(mode: str, at: Mapping[str, str], where: Callable[[str], str], folder: Path | None) -> str | None:
    if at.get("sslrootcert") == _SYSTEM:
        return _SYSTEM
    found = _file(at, "sslrootcert", where, folder, "root.crt")
    if found is None and mode != "require":
        default = "~/.postgresql/root.crt" if folder is None else visible(str(folder / "root.crt"), limit=300)
        raise BadParameter(
            f"{where('sslmode')} is {mode}, but root certificate {default} is not there: name its file with "
            "sslrootcert, or use sslrootcert=system"
        )
    return found


def _check_key(path: str, who: str) -> None:
    found = Path(path).stat()
    if not stat.S_ISREG(found.st_mode):
        raise BadParameter(f"{who}: private key {visible(path, limit=300)} is not a plain file")
    if os.name != "posix":
        return
    allowed = stat.S_IRGRP if found.st_uid == _ROOT else 0
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed:
        raise BadParameter(
            f"{who}: private key {visible(path, limit=300)} has group or world access: chmod 0600 it (0640 if root "
            "owns it)"
        )
