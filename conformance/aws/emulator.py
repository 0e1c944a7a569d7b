"""ministack, unmodified, as a process of its own: EC2, S3, DynamoDB and IAM as programs speak to them.

It is started with `AUTH=true`: it verifies the signature of each request (Signature Version 4), the session token and
the role's own policies, and limits a session by the policy that it was made with. Only its `AssumeRole` takes such a
policy; its `AssumeRoleWithWebIdentity` reads no token and drops it. So the stand-in verifies the token and then has
`AssumeRole` done, in the name of the account's root.
"""

import atexit
import ctypes
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ROOT = Credentials("conformance-root", "conformance-root-secret")
READY_WITHIN_SECONDS = 60


class Emulator:
    """A running ministack on a port of loopback."""

    def __init__(self, port: int, account: str, region: str, folder: Path) -> None:
        self.port, self.account, self.region = port, account, region
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_ACCOUNT_ID": account,
            "MINISTACK_REGION": region,
            "AWS_ACCESS_KEY_ID": ROOT.access_key,
            "AWS_SECRET_ACCESS_KEY": ROOT.secret_key,
            "AWS_DEFAULT_REGION": region,
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "DOCKER_HOST": "unix:///nonexistent",
            "LOG_LEVEL": "WARNING",
        }
        with (folder / "ministack.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ministack"],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
        atexit.register(self.stop)
        self._wait()

    def stop(self) -> None:
        """Ends it. Nothing of it outlives the stand-in, however that ends."""
        self.process.kill()
        self.process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/_ministack/ready")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("ministack does not start: see ministack.log")

    def query(self, service: str, version: str, **parameters: str) -> ET.Element:
        """A request of root by the query protocol (EC2, IAM, STS); the answer, its names without their namespace."""
        body = urlencode({"Version": version, **parameters}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = self.ask(service, "POST", "/", headers, body)
        return ET.fromstring(re.sub(rb' xmlns="[^"]*"', b"", answer))  # noqa: S314

    def json(self, target: str, **members: object) -> dict[str, object]:
        """A request of root to DynamoDB."""
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"DynamoDB_20120810.{target}"}
        return json.loads(self.ask("dynamodb", "POST", "/", headers, json.dumps(members).encode()))

    def ask(self, service: str, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        """A request of root."""
        host = f"{service}.{self.region}.amazonaws.com"
        request = AWSRequest(method, f"http://{host}{path}", headers={**headers, "host": host}, data=body)
        signer = S3SigV4Auth if service == "s3" else SigV4Auth
        signer(ROOT, service, self.region).add_auth(request)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, dict(request.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"ministack answers {answer.status} to {service} {path}: {content[:500]!r}")
        return content

    def furnish(
        self, roles: list[dict[str, object]], buckets: dict[str, dict[str, str]], tables: dict[str, str]
    ) -> list[str]:
        """Roles, buckets with objects, tables with their partition keys, and two instances: their ids."""
        root = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{self.account}:root"}}
        trust = {"Version": "2012-10-17", "Statement": [{**root, "Action": ["sts:AssumeRole", "sts:TagSession"]}]}
        for role in roles:
            self.add_role(str(role["arn"]), json.dumps(trust), json.dumps(role["policy"]))
        for bucket, objects in buckets.items():
            self.ask(
                "s3",
                "PUT",
                f"/{bucket}",
                {},
                f"<CreateBucketConfiguration><LocationConstraint>{self.region}</LocationConstraint></CreateBucketConfiguration>".encode(),
            )
            for key, text in objects.items():
                self.ask("s3", "PUT", f"/{bucket}/{key}", {}, text.encode())
        for table, partition in tables.items():
            self.json(
                "CreateTable",
                TableName=table,
                KeySchema=[{"AttributeName": partition, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": partition, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        self.query("sts", "2011-06-15", Action="GetCallerIdentity")  # or the first session would wait for its imports
        ran = self.query("ec2", "2016-11-15", Action="RunInstances", ImageId="ami-12345678", MinCount="2", MaxCount="2")
        return [str(found.text) for found in ran.iter("instanceId")]

    def add_role(self, arn: str, trust: str, policy: str) -> None:
        """A role, which root may assume; its real trust policy is the stand-in's matter."""
        path, _, name = arn.partition(":role/")[2].rpartition("/")
        self.query(
            "iam",
            "2010-05-08",
            Action="CreateRole",
            RoleName=name,
            Path=f"/{path}/" if path else "/",
            AssumeRolePolicyDocument=trust,
        )
        self.query(
            "iam", "2010-05-08", Action="PutRolePolicy", RoleName=name, PolicyName="rights", PolicyDocument=policy
        )

    def assume(
        self, arn: str, name: str, duration_seconds: int, policy: str | None, tags: dict[str, str]
    ) -> dict[str, str]:
        """A session of a role: its credentials, and who it is."""
        numbered = [(f"Tags.member.{at}.", key, value) for at, (key, value) in enumerate(tags.items(), 1)]
        parameters = {f"{at}Key": key for at, key, _ in numbered} | {f"{at}Value": value for at, _, value in numbered}
        if policy is not None:
            parameters["Policy"] = policy
        answer = self.query(
            "sts",
            "2011-06-15",
            Action="AssumeRole",
            RoleArn=arn,
            RoleSessionName=name,
            DurationSeconds=str(duration_seconds),
            **parameters,
        )
        wanted = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration", "AssumedRoleId", "Arn")
        return {name: str(next(answer.iter(name)).text) for name in wanted}


def die_with_parent() -> None:
    """Asks Linux (prctl, PR_SET_PDEATHSIG) to end this process with the one that started it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
