"""Restarts an EC2 instance with boto3 for each line on stdin, always with the same client, knowing nothing of Deputize.

Argument: the id of an instance. Prints a line for each try: `ok`, or the name of what went wrong.
"""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError


def main() -> None:
    """Restarts, as often as it is told to."""
    ec2 = boto3.Session().client("ec2", config=Config(retries={"total_max_attempts": 1}))
    for _ in sys.stdin:
        try:
            ec2.reboot_instances(InstanceIds=[sys.argv[1]])
            answer = "ok"
        except (BotoCoreError, ClientError) as error:
            answer = type(error).__name__
        print(answer, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
