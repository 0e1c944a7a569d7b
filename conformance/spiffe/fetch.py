"""SPIFFE's own Python library fetches one X.509-SVID and one JWT-SVID, as any process would.

Arguments: the SPIFFE ID, the audience of the JWT-SVID, a folder. Leaves `svid.pem` and `svid.key` there and prints the
token. The endpoint comes from SPIFFE_ENDPOINT_SOCKET.
"""

import pathlib
import sys

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import SpiffeId, WorkloadApiClient


def main():
    identity, audience, folder = sys.argv[1:]
    folder = pathlib.Path(folder)
    with WorkloadApiClient(default_timeout=20) as client:
        svid = next(it for it in client.fetch_x509_svids() if str(it.spiffe_id) == identity)
        chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in svid.cert_chain)
        key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "svid.pem").write_bytes(chain)
        (folder / "svid.key").write_bytes(key)
        token = client.fetch_jwt_svid(audience={audience}, subject=SpiffeId(identity))
    print(token.token)


main()
