"""The verification core that stands before an MCP server: one HTTP request in, a verified call or a refusal out.

No HTTP framework and no sockets. A call reaches the server only as a `VerifiedCall`, which only `Guard.verify` makes:
what is forwarded is re-serialized from what was verified.
"""

from .guard import Admission, Guard, ObservedTools, Redeemed, Redeemer
from .headers import IncomingCall
from .message import LISTING_METHODS
from .refusal import Reason, Refusal, Refused
from .revocation import Revocation
from .settings import GuardSettings, SettingsError
from .snapshot import SNAPSHOT_TYP, PinnedTool, Snapshot, SnapshotRefused
from .verified import VerifiedCall, VerifiedListing

__all__ = [
    "LISTING_METHODS",
    "SNAPSHOT_TYP",
    "Admission",
    "Guard",
    "GuardSettings",
    "IncomingCall",
    "ObservedTools",
    "PinnedTool",
    "Reason",
    "Redeemed",
    "Redeemer",
    "Refusal",
    "Refused",
    "Revocation",
    "SettingsError",
    "Snapshot",
    "SnapshotRefused",
    "VerifiedCall",
    "VerifiedListing",
]
