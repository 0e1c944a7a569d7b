"""A broker that hands out AWS credentials, behind httpx2's mock transport, and an AWS that says who signed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import httpx2
from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

from deputize.call.digest import ABSENT, call_digest
from deputize.call.jws import parse
from deputize.client import Client, ClientOptions
from deputize.client.sealed import DecryptionKey
from guard_fixture import ISSUER, Fixture

WINDOW_SECONDS = 300
Answer = Callable[[dict[str, str]], httpx2.Response | None]


class AwsBroker:
    """Answers as the broker does: to the client whose server the token is for, for the arguments that it is for."""

    def __init__(self, f: Fixture) -> None:
        self.f = f
        self.asked: list[dict[str, str]] = []
        self.answer: Answer = lambda _: None
        """Answers, where it does, in the place of an honest broker."""
        self.seal_to: ECKey | RSAKey | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._lock = threading.Lock()
        self._assertions: set[str] = set()

    def client(self, encryption_key: DecryptionKey | None = None) -> Client:
        http = httpx2.Client(transport=httpx2.MockTransport(self._serve))
        options = ClientOptions(clock=self.f.clock, encryption_key=encryption_key)
        return Client(ISSUER, self.f.settings.client_id, self.f.settings.private_key, options, http)

    def credentials(self, form: dict[str, str], **changes: Any) -> dict[str, Any]:
        """Those of a call: each has its own."""
        jti = parse(form["subject_token"]).claims["jti"]
        ends = datetime.fromtimestamp(self.f.clock.now + WINDOW_SECONDS, timezone.utc)
        return {
            "Version": 1,
            "AccessKeyId": access_key_of(str(jti)),
            "SecretAccessKey": f"secret/of+{jti}",
            "SessionToken": f"session-of-{jti}==",
            "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "AccountId": "111122223333",
            "decision_id": f"decision-{jti}",
            **changes,
        }

    def sealed(self, content: dict[str, Any], **header: Any) -> bytes:
        key = self.seal_to
        assert key is not None
        alg = "ECDH-ES+A256KW" if isinstance(key, ECKey) else "RSA-OAEP-256"
        said = {"alg": alg, "enc": "A256GCM", "cty": "application/json", **header}
        return jwe.encrypt_compact(said, json.dumps(content).encode(), key, [said["alg"], said["enc"], "DEF"]).encode()

    def _serve(self, request: httpx2.Request) -> httpx2.Response:
        assert (request.method, str(request.url)) == ("POST", f"{ISSUER}/aws/credentials")
        form = dict(parse_qsl(request.content.decode(), strict_parsing=True))
        self._authenticate(form["client_assertion"])
        with self._lock:
            self.asked.append(form)
        assert self.may_answer.wait(30)
        answer = self.answer(form)
        if answer is not None:
            return answer
        if not self._is_of_the_call(form):
            return httpx2.Response(400, json={"error": "invalid_request", "error_description": "another call's"})
        content = self.credentials(form)
        if self.seal_to is None:
            return httpx2.Response(200, json=content)
        return httpx2.Response(200, content=self.sealed(content), headers={"content-type": "application/jose"})

    def _is_of_the_call(self, form: dict[str, str]) -> bool:
        assert form["subject_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
        detail: Any = parse(form["subject_token"]).claims["authorization_details"]
        steering = [json.loads(form[name]) if name in form else ABSENT for name in ("input_responses", "request_state")]
        digest = call_digest("tools/call", detail[0]["identifier"], json.loads(form["arguments"]), *steering)
        return bool(digest == detail[0].get("call_digest", digest))

    def _authenticate(self, assertion: str) -> None:
        jws = parse(assertion)
        self.f.settings.private_key.public.verify(jws)
        assert (jws.claims["aud"], jws.claims["sub"]) == (ISSUER, self.f.settings.client_id)
        with self._lock:
            assert jws.claims["jti"] not in self._assertions, "an assertion serves once"
            self._assertions.add(str(jws.claims["jti"]))


def access_key_of(jti: str) -> str:
    return "ASIA" + re.sub(r"[^A-Za-z0-9]", "", jti).upper()


class Aws:
    """Stands for STS: remembers with which key and token each request was signed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.signed_by: list[tuple[str, str]] = []
        self.bodies: list[str] = []


@contextmanager
def aws() -> Iterator[Aws]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            standing.bodies.append(self.rfile.read(int(self.headers["content-length"])).decode())
            found = re.match(r"AWS4-HMAC-SHA256 Credential=([^/]+)/", self.headers.get("authorization", ""))
            key = found[1] if found else ""
            standing.signed_by.append((key, self.headers.get("x-amz-security-token", "")))
            self._answer(
                "<GetCallerIdentityResponse><GetCallerIdentityResult>"
                f"<Arn>arn:aws:sts::111122223333:assumed-role/r/{key}</Arn>"
                "</GetCallerIdentityResult></GetCallerIdentityResponse>"
            )

        def _answer(self, body: str) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/xml")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as url:
        standing = Aws(url)
        yield standing


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on a free port of loopback, for as long as it is needed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
