"""Asks a broker for the AWS credentials of a call with Deputize's own client for Python.

Argument: a file with `issuer`, `ca_file`, `client_id`, `private_key`, `encryption_key` (or null), `token` and `arguments`
as JSON. Prints the secret that it got, or why it got none, as JSON.
"""

import json
import ssl
import sys
from pathlib import Path

import httpx2

from deputize import AwsRequest, Client, ClientOptions, DecryptionKey, DeputizeError, SigningKey


def main() -> None:
    """Asks once."""
    given = json.loads(Path(sys.argv[1]).read_text())
    key = given["encryption_key"] and DecryptionKey.from_jwk(given["encryption_key"])
    http = httpx2.Client(verify=ssl.create_default_context(cafile=given["ca_file"]), trust_env=False)
    own = SigningKey.from_jwk(given["private_key"])
    client = Client(given["issuer"], given["client_id"], own, ClientOptions(encryption_key=key), http)
    try:
        credentials = client.aws_credentials(AwsRequest(token=given["token"], arguments=given["arguments"]))
        answer = {"secret": credentials.secret_access_key}
    except DeputizeError as error:
        answer = {"refused": str(error)}
    print(json.dumps(answer))  # noqa: T201


if __name__ == "__main__":
    main()
