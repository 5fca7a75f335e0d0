"""A certificate authority of the test's own, and a certificate for every server on loopback."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LIFETIME = datetime.timedelta(days=2)


class Authority:
    def __init__(self, directory):
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the authority of the test")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        certificate = self.builder(self.name, self.key).add_extension(constraints, critical=True)
        self.file = directory / "authority.pem"
        self.file.write_bytes(pem(certificate.sign(self.key, hashes.SHA256())))

    def issue(self):
        """Writes a certificate for localhost and its key; returns both paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        certificate = self.builder(subject, key).add_extension(x509.SubjectAlternativeName(names), critical=False)
        cert_file, key_file = self.directory / "server.pem", self.directory / "server.key"
        cert_file.write_bytes(pem(certificate.sign(self.key, hashes.SHA256())))
        format = serialization.PrivateFormat.PKCS8
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, format, serialization.NoEncryption()))
        return cert_file, key_file

    def builder(self, subject, key):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - LIFETIME)
            .not_valid_after(now + LIFETIME)
        )


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)
