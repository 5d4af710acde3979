"""A way by TCP, with TLS if it is asked for, to a real server that has only a socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_TLS_REQUEST = 80877103


class TlsGate:
    """Listens on a free port of 127.0.0.1; `used` tells for each connection whether TLS was used."""

    def __init__(self, target: Path, directory: Path) -> None:
        self._target = str(target)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(directory / "server.crt", directory / "server.key")
        self._context.load_verify_locations(directory / "ca.crt")
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.set_alpn_protocols(["postgresql"])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.used: list[bool] = []
        self.clients: list[str | None] = []
        self.names: list[str | None] = []
        self._context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            first = peer.recv(8, socket.MSG_PEEK | socket.MSG_WAITALL)
            if first[:1] == b"\x16":  # TLS at once
                peer = self._secured(peer)
            elif struct.unpack("!ll", first)[1] == _TLS_REQUEST:
                peer.recv(8)
                peer.sendall(b"S")
                peer = self._secured(peer)
            else:
                self.used.append(False)
            back = threading.Thread(target=_pump, args=(server, peer), daemon=True)
            back.start()
            _pump(peer, server)
            back.join()

    def _secured(self, peer: socket.socket) -> ssl.SSLSocket:
        secured = self._context.wrap_socket(peer, server_side=True)
        self.used.append(True)
        subject: Any = (secured.getpeercert() or {}).get("subject", ())
        self.clients.append(dict(pair for each in subject for pair in each).get("commonName"))

        return secured


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)


# Made in less time than a key of RSA.
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def make_certificates(directory: Path) -> None:
    """Make two authorities, certificates of a server (db.test, localhost) and a client, and lists of revoked ones."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl(
            *("req", "-x509", *_NEW_KEY, "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
    (directory / "server.ext").write_text("subjectAltName=DNS:db.test,DNS:localhost\n")
    (directory / "client.ext").write_text("extendedKeyUsage=clientAuth\n")
    (directory / "ca.cnf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=2\ncrlnumber=number\n"
    )
    (directory / "index").touch()
    (directory / "number").write_text("01\n")
    for name in ("server", "client"):
        openssl(
            *("req", *_NEW_KEY, "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.req"),
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.req", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt"),
        )
        (directory / f"{name}.key").chmod(0o600)
    crl = ("-config", "ca.cnf", "-cert", "ca.crt", "-keyfile", "ca.key")
    openssl("ca", "-gencrl", *crl, "-out", "good.crl")
    openssl("ca", "-revoke", "server.crt", *crl)
    openssl("ca", "-gencrl", *crl, "-out", "revoked.crl")
