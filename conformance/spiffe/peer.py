"""One end of mutual TLS between two processes, each with SVIDs of SPIFFE's own Python library.

`serve ID`: listens on a free port, prints it, lets in whoever shows the SPIFFE ID, and answers each line with itself.
Prints what it has whenever its SVID or bundle changes.
`call PORT ID`: for each line of stdin `once`, connects, has the server show the SPIFFE ID, and asks. `hold` does so and
keeps the connection, which each line `held` uses again; `state` tells what it has. Prints one JSON object for each line.
"""

import json
import logging
import socket
import sys
import threading
import warnings

from cryptography import x509
from OpenSSL import SSL
from spiffe import SpiffeId, X509Source
from spiffetls import create_ssl_context
from spiffetls.tlsconfig.authorize import authorize_id

PATIENCE_SECONDS = 20


class Contexts:
    """A context for each state of the source: one that is in use takes no other certificate."""

    def __init__(self, method, source, peer):
        self.make = lambda: create_ssl_context(method, source, authorize_id(SpiffeId(peer)))
        self.changes, self.made = 0, (None, None)
        source.subscribe_for_updates(self.change)

    def change(self):
        self.changes += 1

    def now(self):
        changes = self.changes  # read first: what changes meanwhile makes another one
        if self.made[0] != changes:
            self.made = (changes, self.make())
        return self.made[1]


def signer(leaf):
    """The key that signed a certificate."""
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    return authority.value.key_identifier.hex()


def state(source):
    """The key that signed the SVID, and how many authorities are trusted."""
    context = source.get_x509_context()
    svid = context.default_svid
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    return {"signer": signer(svid.leaf), "authorities": len(bundle.x509_authorities)}


def answer(connection):
    try:
        connection.do_handshake()
        while line := connection.recv(64):
            connection.sendall(line)
    except SSL.Error:
        pass  # it was refused, or is gone
    finally:
        connection.close()


def serve(peer):
    with X509Source(timeout_in_seconds=PATIENCE_SECONDS) as source:
        tls = Contexts(SSL.TLS_SERVER_METHOD, source, peer)
        # The contexts have subscribed before: what is told here is in use.
        source.subscribe_for_updates(lambda: print(json.dumps(state(source)), flush=True))
        listener = socket.create_server(("127.0.0.1", 0))
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        while True:
            plain, _ = listener.accept()
            connection = SSL.Connection(tls.now(), plain)
            connection.set_accept_state()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def opened(tls, port):
    connection = SSL.Connection(tls, socket.create_connection(("127.0.0.1", port)))
    connection.set_connect_state()
    connection.do_handshake()
    return connection


def asked(connection):
    connection.sendall(b"hello\n")
    return connection.recv(64) == b"hello\n"


def call(port, peer):
    with X509Source(timeout_in_seconds=PATIENCE_SECONDS) as source:
        tls, held = Contexts(SSL.TLS_CLIENT_METHOD, source, peer), None
        has = state(source)
        source.subscribe_for_updates(lambda: has.update(state(source)))
        for line in sys.stdin:
            try:
                if line.strip() == "state":
                    result = has
                elif line.strip() == "held":
                    result = {"ok": asked(held)}
                else:
                    connection = opened(tls.now(), int(port))
                    leaf = connection.get_peer_certificate().to_cryptography()
                    result = {"ok": asked(connection), "signer": signer(leaf)}
                    if line.strip() == "hold":
                        held = connection
                    else:
                        connection.close()
            except (SSL.Error, OSError) as error:
                result = {"ok": False, "error": repr(error)}
            print(json.dumps(result), flush=True)


warnings.simplefilter("ignore", DeprecationWarning)
logging.disable(logging.CRITICAL)  # the library tries to change contexts that are in use, and says so
{"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
