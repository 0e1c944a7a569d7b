"""A FastMCP server whose tool restarts the EC2 instance that a call names. During that call it can restart no other.

python record.py aws_server > record.json
deputize dev --register record.json --ready-file ready.json
python aws_server.py ready.json
python agent.py ready.json restart_instance '{"instance_id": "i-0123456789abcdef0"}' http://127.0.0.1:8021/mcp

The broker needs `aws` in its configuration, and a role template for this tool: see docs/aws.md. Without one the tool
fails and says so. This server holds no AWS key, and nothing of AWS's in its environment but the region.
"""

import os
import sys
from typing import Annotated

from fastmcp import FastMCP
from pydantic import Field

from deputize import GuardSettings
from deputize.fastmcp import DeputizeProvider, current_call

PORT = int(os.environ.get("PORT", "8021"))
URL = f"http://127.0.0.1:{PORT}/mcp"
REGION = os.environ.get("AWS_DEFAULT_REGION", "eu-central-1")
ARGUMENTS = {"instance_id": "i-0123456789abcdef0"}

server = FastMCP("operations")


@server.tool
def restart_instance(instance_id: Annotated[str, Field(pattern="^i-[0-9a-f]{17}$")]) -> dict[str, str]:
    """Restarts an EC2 instance."""
    call = current_call()
    # The credentials of this call: for this instance, for five minutes. AWS's log names the user and the decision.
    ec2 = call.boto3_session(REGION).client("ec2")
    ec2.reboot_instances(InstanceIds=[instance_id])
    return {"restarted": instance_id, "for": call.user}


if __name__ == "__main__":
    # In production: GuardSettings.from_env() or GuardSettings.from_file("guard.json")
    server.auth = DeputizeProvider(GuardSettings.from_ready_file(sys.argv[1], URL))
    server.run(transport="http", host="127.0.0.1", port=PORT, path="/mcp", show_banner=False)
