//! Whether an answer is the one to what was asked. Whoever answers in STS's place, or a stand-in that is mistaken, must
//! not hand a call the credentials of something else.

use aws_sdk_sts::types::{AssumedRoleUser, Credentials};
use deputize_issuer::{
    mint::{RoleCredentials, StsRefusal},
    secret::Secret,
    templates::RenderedSession,
};

/// What both operations answer.
pub(super) struct Answered {
    pub(super) credentials: Option<Credentials>,
    pub(super) user: Option<AssumedRoleUser>,
    /// How much of what STS takes, policy and tags (or the session token with them in it) fill.
    pub(super) filled_percent: Option<i32>,
    pub(super) source_identity: Option<String>,
    /// How often STS was asked until then.
    pub(super) attempts: u32,
}

/// The parts of a role's ARN: `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
pub(super) struct Role<'a> {
    partition: &'a str,
    pub(super) account: &'a str,
    name: &'a str,
}

impl<'a> Role<'a> {
    pub(super) fn of(session: &'a RenderedSession) -> Option<Self> {
        let (partition, rest) = session.role_arn.strip_prefix("arn:")?.split_once(":iam::")?;
        let (account, path) = rest.split_once(":role/")?;
        Some(Self { partition, account, name: path.rsplit('/').next()? })
    }
}

/// The credentials, if they are those of the session that was asked for.
///
/// # Errors
/// [`StsRefusal::Unintelligible`].
pub(super) fn check(
    answered: Answered,
    (session, role): (&RenderedSession, &Role<'_>),
    now_seconds: u64,
) -> Result<RoleCredentials, StsRefusal> {
    let refuse = |what: &'static str| {
        tracing::warn!(template = session.template, what, "STS answers something else than what was asked");
        StsRefusal::Unintelligible
    };
    let given = answered.credentials.ok_or_else(|| refuse("credentials"))?;
    let (secret_access_key, session_token) =
        (Secret::new(given.secret_access_key), Secret::new(given.session_token));
    let user = answered.user.ok_or_else(|| refuse("user"))?;
    // INVARIANT: an assumed role is named by its name alone; its path is not in it.
    let expected_arn = format!(
        "arn:{}:sts::{}:assumed-role/{}/{}",
        role.partition, role.account, role.name, session.session_name
    );
    let expires_at_seconds = u64::try_from(given.expiration.secs()).unwrap_or_default();
    let latest = now_seconds + u64::from(session.duration_seconds) + CLOCK_GRACE_SECONDS;
    let packed = answered.filled_percent.map(u8::try_from).transpose();
    for (what, holds) in [
        ("access key id", is_temporary(&given.access_key_id)),
        ("secret access key", is_plain(secret_access_key.expose(), MAX_SECRET_BYTES)),
        ("session token", is_plain(session_token.expose(), MAX_SESSION_TOKEN_BYTES)),
        ("assumed role", user.arn == expected_arn),
        ("expiration", (now_seconds + 1..=latest).contains(&expires_at_seconds)),
        ("packed policy size", matches!(packed, Ok(None | Some(0..=100)))),
        // Not every stand-in says it; one that says another is wrong.
        (
            "source identity",
            answered.source_identity.is_none_or(|identity| identity == session.source_identity),
        ),
    ] {
        if !holds {
            return Err(refuse(what));
        }
    }
    Ok(RoleCredentials {
        access_key_id: given.access_key_id,
        secret_access_key,
        session_token,
        expires_at_seconds,
        assumed_role_arn: user.arn,
        packed_policy_percent: packed.unwrap_or_default(),
        attempts: answered.attempts,
    })
}

/// `ASIA` begins the ids of sessions' keys (IAM User Guide, unique identifiers); `AKIA`, of a user's long-lived ones, has
/// no place in an answer.
fn is_temporary(id: &str) -> bool {
    id.starts_with("ASIA")
        && (16..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// They go into header fields and signatures.
fn is_plain(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// STS's clock and ours may differ by this.
const CLOCK_GRACE_SECONDS: u64 = 60;
const MAX_SECRET_BYTES: usize = 256;
/// AWS gives no bound of session tokens; those of today have some 1,000 characters.
const MAX_SESSION_TOKEN_BYTES: usize = 16 * 1024;
