"""Authlib's OAuth client over httpx, knowing nothing of Deputize, behind a TLS client certificate (RFC 8705).

Reads one JSON object from stdin: the issuer, a certification authority, the certificate with its key, the client's id
and what to ask for. Exchanges, asks about the token and revokes it; prints what came of it, as one JSON object.
"""

import base64
import hashlib
import json
import ssl
import sys

import httpx
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def main():
    given = json.load(sys.stdin)
    context = ssl.create_default_context(cafile=given["authority"])
    context.load_cert_chain(given["certificate"], given["key"])
    metadata = httpx.get(f"{given['issuer']}/.well-known/oauth-authorization-server", verify=context).json()

    # RFC 8705 §2: the id is in the form; what proves it is in the handshake.
    client = OAuth2Client(given["client_id"], token_endpoint_auth_method="none", verify=context)
    try:
        token = client.fetch_token(metadata["token_endpoint"], grant_type=EXCHANGE, **given["parameters"])
    except OAuthError as error:
        print(json.dumps({"error": error.error}))
        return
    access = token["access_token"]
    with open(given["certificate"], encoding="ascii") as file:
        leaf = ssl.PEM_cert_to_DER_cert(file.read().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----")
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(leaf).digest()).rstrip(b"=").decode()

    def about():
        return client.introspect_token(metadata["introspection_endpoint"], token=access).json()

    before = about()
    client.revoke_token(metadata["revocation_endpoint"], token=access)
    print(
        json.dumps(
            {
                "metadata": metadata,
                "token_type": token["token_type"],
                "claims": json.loads(decoded(access.split(".")[1])),
                "thumbprint": thumbprint,
                "before": before,
                "after": about(),
            }
        )
    )


main()
