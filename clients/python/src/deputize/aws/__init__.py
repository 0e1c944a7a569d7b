"""AWS credentials for the one resource in a call, in the process that runs it.

A tool behind `deputize.asgi.ToolCallMiddleware` or `deputize.fastmcp.DeputizeProvider` has them from its call:

```python
session = current_call().boto3_session(region_name="eu-central-1")
session.client("ec2").reboot_instances(InstanceIds=[instance_id])
```

A server behind the guard proxy has them from the request: `credentials_from_guard(request.headers)`.
"""

from .container import credentials_from_guard
from .credentials import AwsCredentials, CallCredentials

__all__ = ["AwsCredentials", "CallCredentials", "credentials_from_guard"]
