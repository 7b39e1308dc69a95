"""ECDSA and RSA for SSH keys, and the writing of public keys: imported only where they are used.

Ed25519, which most people have, needs none of it. Importing this brings in `threading` and `random`,
whose after-fork work would be paid again by every job that a slot forks.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

CURVES = {
    "ecdsa-sha2-nistp256": (ec.SECP256R1(), ec.ECDSA(hashes.SHA256())),
    "ecdsa-sha2-nistp384": (ec.SECP384R1(), ec.ECDSA(hashes.SHA384())),
    "ecdsa-sha2-nistp521": (ec.SECP521R1(), ec.ECDSA(hashes.SHA512())),
}
RSA_HASHES = {"rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}
RSA_PADDING = padding.PKCS1v15()
PRIVATE_KINDS = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)

curve_point = ec.EllipticCurvePublicKey.from_encoded_point
rsa_numbers = rsa.RSAPublicNumbers
pair_to_der = utils.encode_dss_signature
der_to_pair = utils.decode_dss_signature


def public_line(key) -> str:
    """A public key of the `cryptography` package as OpenSSH writes it."""
    form, encoding = serialization.PublicFormat.OpenSSH, serialization.Encoding.OpenSSH
    return key.public_bytes(encoding, form).decode()
