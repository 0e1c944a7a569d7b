"""Restarts EC2 instances with boto3 as any program does, knowing nothing of Deputize.

Credentials come from wherever botocore's own chain finds them. Arguments: how often, then the ids of instances. Prints
who it is and, for each try, `ok` or the code of the refusal, as one JSON object.
"""

import json
import sys
from collections.abc import Callable

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def main() -> None:
    """Says who it is, and restarts."""
    session = boto3.Session()
    once = Config(retries={"total_max_attempts": 1})
    ec2, sts = (session.client(service, config=once) for service in ("ec2", "sts"))

    def restart(instance: str) -> str:
        ec2.reboot_instances(InstanceIds=[instance])
        return "ok"

    restarts = [answer(restart, instance) for instance in sys.argv[2:] * int(sys.argv[1])]
    arn = answer(lambda: str(sts.get_caller_identity()["Arn"]))
    print(json.dumps({"arn": arn, "restarts": restarts}))  # noqa: T201


def answer(ask: Callable[..., str], *arguments: str) -> str:
    """What comes of it, or the code of the refusal."""
    try:
        return ask(*arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])


if __name__ == "__main__":
    main()
