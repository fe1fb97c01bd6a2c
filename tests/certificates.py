"""Certificates, made when a test needs them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pybeethoven import TlsOptions

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """The PEM files of a certificate and its key."""

    certfile: Path
    keyfile: Path

    def replace(self, other: Certificate) -> None:
        """Put the files in the place of another's."""
        self.certfile.replace(other.certfile)
        self.keyfile.replace(other.keyfile)

    def options(self, authority: Authority, **others: Any) -> TlsOptions:
        """Those of a node with this certificate, in a cluster that trusts `authority`."""
        return TlsOptions(
            certfile=self.certfile, keyfile=self.keyfile, cacertfile=authority.certfile, **others
        )

    def beam_flags(self, authority: Authority, version: str = "tlsv1.3") -> list[str]:
        """The flags of a BEAM with this certificate, that trusts `authority` and speaks only one
        version of TLS."""
        path = self.certfile.with_suffix(f".{authority.certfile.stem}.{version}.config")
        common = (
            f'{{certfile,"{self.certfile}"}},{{keyfile,"{self.keyfile}"}},'
            f'{{cacertfile,"{authority.certfile}"}},{{verify,verify_peer}},'
            f"{{versions,['{version}']}}"
        )
        server = f"{common},{{fail_if_no_peer_cert,true}}"
        path.write_text(f"[{{server,[{server}]}},{{client,[{common}]}}].\n")
        return ["-proto_dist", "inet_tls", "-ssl_dist_optfile", str(path)]


class Authority:
    """A CA, whose files are in `directory` and begin with `name`; `issuer`: the CA above it."""

    def __init__(self, directory: Path, name: str, issuer: Authority | None = None) -> None:
        issuer = issuer or self
        self._directory, self._name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _subject(name)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            issuer._builder(self._subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(issuer._key, hashes.SHA256())
        )
        self.certfile = directory / f"{name}.pem"
        self.certfile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *hosts: str,
        addresses: tuple[str, ...] = (),
        expired: bool = False,
        password: bytes | None = None,
    ) -> Certificate:
        """A certificate with the common name `name`, `hosts` as DNS names, and `addresses`."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_subject(name), key, age=3 * DAY, life=DAY if expired else 9 * DAY)
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        # Python 3.13 and later ask for it by default.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = self._directory / f"{self._name}-{name}"
        made = Certificate(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        made.certfile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.keyfile.touch(0o600)
        made.keyfile.write_bytes(_pem(key, password))
        return made

    def revoke(self, *certfiles: Path, expired: bool = False) -> Path:
        """A file with the CRL of this CA, which has these certificates."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._subject)
            .last_update(now - 3 * DAY)
            .next_update(now - DAY if expired else now + DAY)
        )
        for certfile in certfiles:
            serial = x509.load_pem_x509_certificate(certfile.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        crlfile = self._directory / f"{self._name}.crl"
        crl = builder.sign(self._key, hashes.SHA256())
        crlfile.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return crlfile

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        age: timedelta = 3 * DAY,
        life: timedelta = 9 * DAY,
    ) -> x509.CertificateBuilder:
        start = datetime.now(UTC) - age
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + life)
        )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _pem(key: ec.EllipticCurvePrivateKey, password: bytes | None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
