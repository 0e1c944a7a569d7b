"""The verification core that stands before an MCP server: one HTTP request in, a verified call or a refusal out.

No HTTP framework and no sockets. A call reaches the server only as a `VerifiedCall`, which only `Guard.verify` makes:
what is forwarded is re-serialized from what was verified.
"""

from .guard import Admission, AwsDoor, Examined, Guard, Redeemed, Redeemer
from .headers import IncomingCall
from .known import ObservedTools
from .message import LISTING_METHODS
from .pin import Pinned, SnapshotRefused
from .refusal import Reason, Refusal, Refused
from .revocation import Revocation
from .settings import GuardSettings, SettingsError
from .snapshot import SNAPSHOT_TYP, Snapshot
from .verified import Verified, VerifiedCall, VerifiedListing, VerifiedResponse, VerifiedStream

__all__ = [
    "LISTING_METHODS",
    "SNAPSHOT_TYP",
    "Admission",
    "AwsDoor",
    "Examined",
    "Guard",
    "GuardSettings",
    "IncomingCall",
    "ObservedTools",
    "Pinned",
    "Reason",
    "Redeemed",
    "Redeemer",
    "Refusal",
    "Refused",
    "Revocation",
    "SettingsError",
    "Snapshot",
    "SnapshotRefused",
    "Verified",
    "VerifiedCall",
    "VerifiedListing",
    "VerifiedResponse",
    "VerifiedStream",
]
