"""Looks with parliament at every IAM policy of the documents on stdin, and prints what it found: a JSON array.

Each line of stdin is one policy: {"name": …, "kind": "rights" or "trust", "policy": {…}}.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

from parliament import analyze_policy_string, enhance_finding  # noqa: E402


def findings(line: str) -> list[str]:
    document = json.loads(line)
    policy, is_trust = document["policy"], document["kind"] == "trust"
    if is_trust:
        # It takes every policy for one of rights, which name resources.
        for statement in policy["Statement"]:
            statement["Resource"] = "*"
    found = analyze_policy_string(json.dumps(policy)).findings
    return [
        f"{document['name']}: {enhance_finding(finding).severity} {finding.issue}: {finding.detail}"
        for finding in found
        if not (is_trust and is_unknown_provider(finding))
    ]


def is_unknown_provider(finding) -> bool:
    """It knows the large identity providers alone, and the keys of their tokens; and it minds our `*` above."""
    if finding.issue == "UNKNOWN_CONDITION_FOR_ACTION":
        return "/web-identity:aud " in finding.detail or "/web-identity:sub " in finding.detail
    return finding.issue in ("UNKNOWN_FEDERATION_SOURCE", "RESOURCE_STAR")


print(json.dumps([finding for line in sys.stdin for finding in findings(line)]))
