"""What STS says no with: a code, a status and XML.

Codes and statuses are those of AWS's own service description of STS (version 2011-06-15), which botocore carries:
`InvalidIdentityToken`, `ExpiredTokenException`, `IDPCommunicationError`, `MalformedPolicyDocument` and
`PackedPolicyTooLarge` are 400, `IDPRejectedClaim` and `RegionDisabledException` 403. `AccessDenied` (403),
`Throttling` and `ValidationError` (400) are of the errors that all of AWS's query services have.
"""

import uuid
from xml.sax.saxutils import escape

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
STATUS = {
    "AccessDenied": 403,
    "ExpiredTokenException": 400,
    "IDPCommunicationError": 400,
    "IDPRejectedClaim": 403,
    "InvalidAction": 400,
    "InvalidIdentityToken": 400,
    "MalformedPolicyDocument": 400,
    "PackedPolicyTooLarge": 400,
    "RegionDisabledException": 403,
    "Throttling": 400,
    "ValidationError": 400,
}


class Refusal(Exception):
    """A request that STS refuses."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, STATUS[code]

    def xml(self) -> bytes:
        """The body of the answer."""
        error = f"<Type>Sender</Type><Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
        return (
            f'<ErrorResponse xmlns="{NAMESPACE}"><Error>{error}</Error>'
            f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
        ).encode()


def invalid(name: str, value: str, constraint: str) -> Refusal:
    """A parameter that is not what the service description demands."""
    shown = value if len(value) <= 80 else f"{value[:80]}…"
    return Refusal(
        "ValidationError",
        f"1 validation error detected: Value '{shown}' at '{name}' failed to satisfy constraint: {constraint}",
    )
