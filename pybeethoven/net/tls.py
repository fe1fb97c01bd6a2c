"""Distribution over TLS: what a node needs for it, and whom it takes for whom.

As with OTP's `-proto_dist inet_tls`, TLS is below the distribution protocol and no peer is told of
it: a node speaks it with all others, or with none.

Both sides show a certificate, and both check that a CA they trust has signed it. The side that
dials also checks that it is the certificate of the host part of the node's name; the other side
does so with `check_client_host`. If that is an address, OTP 25 wants it in a `dNSName`, OTP 27 in
an `iPAddress`; here either will do. The certificate of a node that both may dial has it as both.

Sources: https://www.erlang.org/doc/apps/ssl/ssl_distribution.html, and of OTP 25.2.3
lib/ssl/src/inet_tls_dist.erl, `verify_hostname` in lib/ssl/src/ssl_certificate.erl and
`pkix_verify_hostname` in lib/public_key/src/public_key.erl.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from pybeethoven.errors import ConfigError, HandshakeError, brief

logger = logging.getLogger(__name__)

_Stamp: TypeAlias = tuple[int, int, int, int] | None
"""What differs where a file does; None: there is none."""

# By X509_V_ERR_... of OpenSSL's x509_vfy.h; 18 to 21: self-signed or signed by nobody known
_HINTS: Final = dict.fromkeys((18, 19, 20, 21), "no CA in cacertfile") | {
    3: "crlfile lacks that of a CA above it",
    12: "crlfile needs a newer one",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """How a node is to speak TLS; the names are those of OTP's `-ssl_dist_optfile`.

    `certfile`, `keyfile`: its own certificate, with those between it and the CA behind it, and the
    key of it, in PEM; without `keyfile` the key is in `certfile`. `password`: of the key, if it is
    encrypted. `cacertfile`: the CAs whose certificates peers must have, in PEM; keep it to the
    cluster's own. `minimum_version`: the oldest TLS that is spoken.
    `crlfile`: revoked certificates, as CRLs in PEM, one of each CA. As with `{crl_check, true}` in
    OTP, a peer's certificate and all between it and the CA are checked: it is refused if one is
    revoked, or if the CRL of a CA above is missing or has expired.
    `check_host`: whether a node that is dialled must have a certificate for its host. Without it,
    each node can pass itself off as any other.
    `check_client_host`: the same for a node that dials this one, and the host in the name that it
    gives. Without it, as in OTP, a node with any certificate of a CA may dial under any name.
    Files that change are loaded again for the next connection; those that are up stay.
    """

    certfile: Path | str
    keyfile: Path | str | None = None
    password: str | None = field(default=None, repr=False)
    cacertfile: Path | str
    crlfile: Path | str | None = None
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    check_host: bool = True
    check_client_host: bool = False


class TlsContexts:
    """What `TlsOptions` come to, for both roles. Raises `ConfigError` that names the bad file."""

    _loaded: list[_Stamp]
    _warned: list[_Stamp]
    _key: _Stamp = None

    def __init__(self, options: TlsOptions) -> None:
        self.options = options
        self._load(self._stamps())

    def refresh(self) -> None:
        """Load the files again if one has changed since.

        Files that can't be used, e.g. a new certificate whose key is not there yet, change nothing;
        a warning says so once, and the next call tries again.
        """
        stamps = self._stamps()
        if stamps == self._loaded:
            return
        try:
            self._load(stamps)
        except (ConfigError, OSError) as error:
            if stamps != self._warned:
                logger.warning("the TLS files have changed, the old ones stay in use: %s", error)
            self._warned = stamps

    def _load(self, stamps: list[_Stamp]) -> None:
        self.server, self.client = (
            _context(ssl.PROTOCOL_TLS_SERVER, self.options),
            _context(ssl.PROTOCOL_TLS_CLIENT, self.options),
        )
        self._loaded = self._warned = stamps
        self._check_key(self.options.keyfile or self.options.certfile)

    def _check_key(self, path: Path | str) -> None:
        before, self._key = self._key, _stamp(path)
        if self._key not in (None, before) and self._key[-1] & stat.S_IROTH:
            logger.warning("every user may read the TLS key in %r: chmod 600 it", str(path))

    def _stamps(self) -> list[_Stamp]:
        options = self.options
        files = options.certfile, options.keyfile, options.cacertfile, options.crlfile
        return [_stamp(path) for path in files if path is not None]


def _stamp(path: Path | str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def _context(protocol: ssl._SSLMethod, options: TlsOptions) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # see check_host
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = options.minimum_version
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load_certificate(context, options)
    _load_authorities(context, options)
    if options.crlfile is not None:
        _load_crls(context, options.crlfile)
    return context


def _load_certificate(context: ssl.SSLContext, options: TlsOptions) -> None:
    keyfile = options.keyfile or options.certfile
    _check_readable("certfile", options.certfile)
    _check_readable("keyfile", keyfile)
    try:
        # An empty password fails; None would have OpenSSL ask for one at the terminal.
        context.load_cert_chain(options.certfile, keyfile, options.password or "")
    except ssl.SSLError as error:
        why = "both must be in PEM, and a password given if the key has one, the right one"
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            why = "the key is not that of the certificate"
        raise ConfigError(
            f"certfile {str(options.certfile)!r} and keyfile {str(keyfile)!r} can't be used: {why}"
        ) from error


def _load_authorities(context: ssl.SSLContext, options: TlsOptions) -> None:
    _check_readable("cacertfile", options.cacertfile)
    try:
        context.load_verify_locations(options.cacertfile)
    except ssl.SSLError as error:
        raise ConfigError(
            f"cacertfile {str(options.cacertfile)!r} has no certificate in PEM: {error.reason}"
        ) from error


def _load_crls(context: ssl.SSLContext, crlfile: Path | str) -> None:
    _check_readable("crlfile", crlfile)
    authorities = context.cert_store_stats()["x509"]
    with suppress(ssl.SSLError):
        context.load_verify_locations(crlfile)
        loaded = context.cert_store_stats()
        # A certificate in it would be trusted, as those in cacertfile are.
        if loaded["crl"] and loaded["x509"] == authorities:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
            return
    raise ConfigError(f"crlfile {str(crlfile)!r} must have CRLs in PEM, and no certificates")


def _check_readable(setting: str, path: Path | str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting} {str(path)!r} can't be read: {error.strerror}") from error


def check_host(certificate: Mapping[str, Any], host: str) -> None:
    """Check that a certificate, as `ssl.SSLSocket.getpeercert` gives it, is one of `host`.

    Other than for web sites, a name with a `*` in it is not one of many hosts. The common name
    counts only where there is no other. Raises `HandshakeError`.
    """
    alternatives = certificate.get("subjectAltName", ())
    names = [_normal(name) for kind, name in alternatives if kind in ("DNS", "IP Address")]
    names = names or [_normal(name) for name in _common_names(certificate.get("subject", ()))]
    if _normal(host) not in names:
        raise HandshakeError(
            f"its certificate is not for the host {host!r}, but for {brief(names)}"
        )


def _common_names(subject: Iterable[Iterable[tuple[str, str]]]) -> list[str]:
    return [value for name in subject for key, value in name if key == "commonName"]


def _normal(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def explain(error: ssl.SSLError) -> str:
    """What has gone wrong between us and a peer, in words; "it" is the peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"its certificate is not accepted: {error.verify_message}"
        hint = _HINTS.get(error.verify_code)
        return f"{text} ({hint})" if hint else text
    reason = error.reason or str(error)
    text = reason.partition("ALERT_")[2].replace("_", " ").lower()
    if not text:
        return reason.replace("_", " ").lower()
    if "certificate" in text or text == "unknown ca":
        return f"it does not accept the certificate of this node: {text}"
    return f"it has refused: {text}"
