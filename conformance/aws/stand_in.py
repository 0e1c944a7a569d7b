"""A strict stand-in for AWS, on loopback.

STS that verifies what STS verifies, and EC2, S3 and DynamoDB of ministack behind a gate that knows the sessions which
this STS made.

    python stand_in.py SETTINGS.json

`SETTINGS.json` says the account, its region, its roles, what is to be in it, certificates, and a folder for logs. When
everything answers, one line of JSON is printed: `sts` (https, for the broker), `endpoint` (http, for programs of AWS:
all services at one address), `emulator` (http, ministack without the gate), `instances`. It ends with its stdin.

Tests steer it at `/_stand_in/…` of `endpoint`:

* `POST ill` `{"kind", "times"}`: the next so many calls of STS are throttled (`throttle`), answered with rubbish
  (`rubbish`), refused (`deny`, `region`, `claim`) or left hanging (`hang`).
* `POST clock` `{"offset_seconds"}`: the time at which session policies and expiry are judged.
* `POST providers` `{"url", "audiences"}`; `POST roles` `{"arn", "trust", "policy"}`: more of them.
* `GET calls`: every call so far, in order: of STS with its outcome, of the services with the verdict.
"""

import http.client
import json
import ssl
import sys
import threading
import time
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from emulator import Emulator
from gate import Gate, Known, Request, refusal_of
from identity import Providers
from policy import parse
from refusal import NAMESPACE, Refusal, invalid
from session import Account, Role, Session

MAX_BODY_BYTES = 1_000_000
HANGS_SECONDS = 120


class StandIn:
    """Everything that answers."""

    def __init__(self, settings: dict[str, Any]) -> None:
        account = settings["account"]
        self.folder = Path(settings["folder"])
        providers = Providers(settings["ca_file"], settings["skew_seconds"], settings["keys_cached_seconds"])
        self.account = Account(account, providers, settings["packed_bytes"])
        self.gate = Gate(account, settings["tables"])
        self.emulator = Emulator(settings["emulator_port"], account, settings["region"], self.folder)
        self.instances = self.emulator.furnish(settings["roles"], settings["buckets"], settings["tables"])
        for role in settings["roles"]:
            self.know(role)
        for provider in settings["providers"]:
            providers.register(provider["url"], provider["audiences"])
        self.lock = threading.Lock()
        self.calls: list[dict[str, Any]] = []
        self.ill: list[str] = []

    def know(self, role: dict[str, Any]) -> None:
        """A role that may be assumed from now on."""
        trust = json.dumps(role["trust"])
        parse(trust, kind="trust")
        self.account.roles[role["arn"]] = Role(role["arn"], trust, role.get("max_session_seconds", 3600))

    def record(self, **members: object) -> None:
        """Remembers a call."""
        with self.lock:
            self.calls.append(members)

    def assume(self, form: dict[str, str]) -> bytes:
        """`AssumeRoleWithWebIdentity`."""
        session = self.account.session(form)
        made = self.emulator.assume(
            session.role.arn, session.name, session.duration_seconds, session.policy, session.tags
        )
        statements = parse(session.policy) if session.policy else [dict(EVERYTHING)]
        self.gate.sessions[made["AccessKeyId"]] = Known(
            session.role.arn,
            session.name,
            statements,
            session.tags,
            session.source_identity,
            datetime.fromisoformat(made["Expiration"]),
        )
        self.record(
            sts="AssumeRoleWithWebIdentity",
            outcome="made",
            role=session.role.arn,
            session=session.name,
            sub=session.identity.subject,
            tags=session.tags,
            source_identity=session.source_identity,
            access_key=made["AccessKeyId"],
            policy=session.policy,
        )
        return assumed(session, made)

    def sts(self, form: dict[str, str], *, signed: bool) -> tuple[int, bytes]:
        """A call of STS, ill or well: status and body."""
        with self.lock:
            kind = self.ill.pop(0) if self.ill else None
        try:
            if kind == "hang":
                self.record(sts=form.get("Action"), outcome="hang")
                time.sleep(HANGS_SECONDS)
            if kind == "rubbish":
                self.record(sts=form.get("Action"), outcome="rubbish")
                return 200, b"<html><body>It works!</body></html>"
            if kind in ILL:
                raise Refusal(*ILL[kind])
            if form.get("Action") != "AssumeRoleWithWebIdentity":
                raise Refusal("InvalidAction", f"Could not find operation {form.get('Action')}")
            if signed:
                raise invalid("Authorization", "AWS4-HMAC-SHA256", "No credentials are due for this operation")
            return 200, self.assume(form)
        except Refusal as refusal:
            self.record(sts=form.get("Action"), outcome=refusal.code, message=refusal.message)
            return refusal.status, refusal.xml()

    def steer(self, method: str, what: str, told: dict[str, Any]) -> object:
        """What a test wants."""
        if (method, what) == ("GET", "calls"):
            with self.lock:
                return list(self.calls)
        if (method, what) == ("POST", "ill"):
            with self.lock:
                self.ill = [told["kind"]] * told["times"]
        elif (method, what) == ("POST", "clock"):
            self.gate.offset = timedelta(seconds=told["offset_seconds"])
        elif (method, what) == ("POST", "providers"):
            self.account.providers.register(told["url"], told["audiences"])
        elif (method, what) == ("POST", "roles"):
            self.know(told)
        else:
            raise ValueError(f"{method} {what}: there is no such thing")
        return {}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    stand_in: ClassVar[StandIn]
    timeout = 130

    def do_any(self) -> None:
        """Any request."""
        length = int(self.headers.get("content-length", "0"))
        if length > MAX_BODY_BYTES or "transfer-encoding" in self.headers:
            self.answer(413, "text/plain", b"too long")
            return
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        if self.path.startswith("/_stand_in/"):
            told = json.loads(body) if body else {}
            said = self.stand_in.steer(self.command, self.path.removeprefix("/_stand_in/"), told)
            self.answer(200, "application/json", json.dumps(said).encode())
        elif isinstance(self.server, OnlySts) or b"Action=AssumeRoleWithWebIdentity" in body:
            self.answer(*self.sts(request))
        else:
            self.service(request)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_any  # noqa: N815

    def sts(self, request: Request) -> tuple[int, str, bytes]:
        """A call of STS: a form in the body, and nothing of it in the URL."""
        form_type = request.headers.get("content-type", "").partition(";")[0]
        if request.method != "POST" or request.target != "/" or form_type != "application/x-www-form-urlencoded":
            refusal = invalid("request", request.method, "A form is to be posted to /")
            self.stand_in.record(sts="?", outcome=refusal.code, message=refusal.message)
            return refusal.status, "text/xml", refusal.xml()
        pairs = parse_qsl(request.body.decode(), keep_blank_values=True)
        form = dict(pairs)
        if len(form) != len(pairs):
            refusal = invalid("request", "", "A parameter stands twice")
            self.stand_in.record(sts=form.get("Action"), outcome=refusal.code, message=refusal.message)
            return refusal.status, "text/xml", refusal.xml()
        status, body = self.stand_in.sts(form, signed="authorization" in request.headers)
        return status, "text/xml", body

    def service(self, request: Request) -> None:
        """A request to a service: judged, then passed on as it is."""
        action, resources, verdict = self.stand_in.gate.judge(request)
        access_key, _, service = request.credential
        status = None
        if verdict == "Allow":
            connection = http.client.HTTPConnection("127.0.0.1", self.stand_in.emulator.port, timeout=30)
            connection.request(request.method, request.target, request.body or None, dict(self.headers.items()))
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in PER_HOP]
        self.stand_in.record(
            service=service, action=action, resources=resources, verdict=verdict, status=status, access_key=access_key
        )
        if status is None:
            self.answer(*refusal_of(service, verdict, action))
            return
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if request.method != "HEAD":
            self.wfile.write(body)

    def answer(self, status: int, media_type: str, body: bytes) -> None:
        """An answer of the stand-in itself."""
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nothing: tokens may stand in a request line that is wrong."""


class Open(ThreadingHTTPServer):
    """All services, over http, as programs of AWS are pointed to one address."""

    daemon_threads = True
    request_queue_size = 256


class OnlySts(Open):
    """STS, over https."""

    def __init__(self, certificate: str, key: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, key)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake is each connection's own affair."""
        request.settimeout(30)
        with self.tls.wrap_socket(request, server_side=True) as stream:
            self.RequestHandlerClass(stream, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is none of our business."""


def assumed(session: Session, made: dict[str, str]) -> bytes:
    """The answer to `AssumeRoleWithWebIdentity`."""
    credentials = "".join(
        f"<{name}>{escape(made[name])}</{name}>"
        for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    )
    source = f"<SourceIdentity>{session.source_identity}</SourceIdentity>" if session.source_identity else ""
    return (
        f'<AssumeRoleWithWebIdentityResponse xmlns="{NAMESPACE}"><AssumeRoleWithWebIdentityResult>'
        f"<SubjectFromWebIdentityToken>{escape(session.identity.subject)}</SubjectFromWebIdentityToken>"
        f"<Audience>{escape(session.identity.audience)}</Audience>"
        f"<AssumedRoleUser><Arn>{made['Arn']}</Arn><AssumedRoleId>{made['AssumedRoleId']}</AssumedRoleId></AssumedRoleUser>"
        f"<Credentials>{credentials}</Credentials>{source}"
        f"<Provider>{escape(session.identity.provider.url)}</Provider>"
        f"<PackedPolicySize>{session.packed_percent}</PackedPolicySize>"
        "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    ).encode()


def main() -> None:
    """Starts everything, says where, and ends with stdin."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    Handler.stand_in = stand_in = StandIn(settings)
    secure = OnlySts(settings["certificate"], settings["key"])
    plain = Open(("127.0.0.1", 0), Handler)
    for server in (secure, plain):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ready = {
        "sts": f"https://localhost:{secure.server_address[1]}",
        "endpoint": f"http://127.0.0.1:{plain.server_address[1]}",
        "emulator": f"http://127.0.0.1:{stand_in.emulator.port}",
        "instances": stand_in.instances,
    }
    print(json.dumps(ready), flush=True)  # noqa: T201
    sys.stdin.read()


ILL = {
    "throttle": ("Throttling", "Rate exceeded"),
    "deny": ("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"),
    "region": ("RegionDisabledException", "STS is not activated in this region for the account"),
    "claim": ("IDPRejectedClaim", "The provider says that the token was revoked"),
}
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
PER_HOP = {"connection", "content-length", "transfer-encoding", "date", "server"}

if __name__ == "__main__":
    main()
