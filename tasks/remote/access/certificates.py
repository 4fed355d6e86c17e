"""X.509 for one's own use: an authority, certificates of servers that it signs, and what is wrong with a pair of files.

Elliptic curve P-256 throughout. ``credentials`` calls this and knows the folders; only processes that make or use a
server certificate import it, so that a worker does without the ``cryptography`` package.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
SERVER_DAYS = 730

_KEY_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class Certified(NamedTuple):
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate, as it is stored."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, as it is stored: without password."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def hosts(self) -> list[str]:
        """DNS names and addresses that the certificate is good for."""
        names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(name.value) for name in names]

    @property
    def days_left(self) -> float:
        """Until it expires."""
        return (self.certificate.not_valid_after_utc - _now()) / datetime.timedelta(days=1)

    @property
    def last_day(self) -> str:
        """Year, month and day."""
        return f"{self.certificate.not_valid_after_utc:%Y-%m-%d}"


def make_authority(name: str) -> Certified:
    """An authority that signs itself, and may sign servers but no further authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _common_name(name)
    builder = (
        _builder(subject, subject, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return Certified(builder.sign(key, hashes.SHA256()), key)


def make_server_certificate(authority: Certified, name: str, hosts: Sequence[str]) -> Certified:
    """A certificate, with a new key, for a server that is reached at these DNS names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Not beyond the authority's own end, after which nobody could verify it.
    days = min(SERVER_DAYS, int(authority.days_left))
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(_common_name(name), authority.certificate.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(issuer, critical=False)
    )
    return Certified(builder.sign(authority.key, hashes.SHA256()), key)


def load_certified(path: Path, pem: bytes, key_path: Path, key_pem: bytes) -> Certified:
    """A certificate and its key from the contents of two files, whose paths are for the errors.

    Raises:
        ValueError: One of them is damaged, they do not belong together, or the certificate is not valid now.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ValueError(f"{path} is not a certificate: {error}") from error
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{key_path} is not a private key without password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{key_path} must be a key on an elliptic curve, as --make-credentials makes it")
    if certificate.public_key() != key.public_key():
        raise ValueError(f"{key_path} does not belong to {path}; copy both again")
    now = _now()
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise ValueError(
            f"{path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}, and today is {now:%Y-%m-%d}; set the clock right, or renew "
            "it with --make-credentials"
        )
    return Certified(certificate, key)


def is_signed_by(certified: Certified, authority: Certified) -> bool:
    """Whether this authority signed it."""
    try:
        certified.certificate.verify_directly_issued_by(authority.certificate)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A worker whose clock is somewhat behind shall not refuse it.
        .not_valid_before(_now() - datetime.timedelta(days=1))
        .not_valid_after(_now() + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*wanted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in wanted for use in _KEY_USES})


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
