//! One call of STS: the SDK's client, made by hand, so that nothing in it comes from elsewhere.

use aws_sdk_sts::{
    Client, Config,
    config::{
        Credentials, IdentityCache, Region, StalledStreamProtectionConfig, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    types::Tag,
};
use deputize_issuer::{mint::StsRefusal, secret::Secret, templates::RenderedSession};
use std::{path::Path, time::Duration};
use zeroize::Zeroizing;

use super::super::key_files;
use super::{Held, StsSettings, UserKeys, answer::Answered, refusal::refusal, transport::Transport};

pub(super) async fn call(
    held: &Held,
    session: &RenderedSession,
    web_identity: &Secret<String>,
) -> Result<Answered, StsRefusal> {
    let transport = held.transport.counting();
    let client = |credentials| client((held, &transport), session, credentials);
    let answered = match &held.settings.keys {
        None => with_web_identity(client(None), session, web_identity).await,
        Some(keys) => with_keys(client(Some(read(keys)?)), session).await,
    };
    answered.map(|answered| Answered { attempts: transport.attempts(), ..answered })
}

/// What an operation answered. Both answer in the same members, and the SDK has a type of its own for each.
macro_rules! answered {
    ($asked:expr) => {{
        let output = $asked.send().await.map_err(|error| refusal(&error))?;
        #[expect(deprecated, reason = "what replaces it is not answered everywhere")]
        let filled_percent = output.packed_policy_size.or(output.session_token_utilization);
        Ok(Answered {
            credentials: output.credentials,
            user: output.assumed_role_user,
            filled_percent,
            source_identity: output.source_identity,
            attempts: 0,
        })
    }};
}

/// `AssumeRoleWithWebIdentity`: tags, source identity and role stand in the token, signed.
async fn with_web_identity(
    client: Client,
    session: &RenderedSession,
    web_identity: &Secret<String>,
) -> Result<Answered, StsRefusal> {
    let asked = client
        .assume_role_with_web_identity()
        .role_arn(&session.role_arn)
        .role_session_name(&session.session_name)
        .web_identity_token(web_identity.expose())
        .policy(&session.policy)
        .duration_seconds(duration(session)?);
    answered!(asked)
}

/// `AssumeRole`: who holds the keys says tags and source identity itself, and the role's trust policy has to allow that
/// (`sts:TagSession`, `sts:SetSourceIdentity`).
async fn with_keys(client: Client, session: &RenderedSession) -> Result<Answered, StsRefusal> {
    let tags = session.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    let tags = tags.collect::<Result<Vec<_>, _>>().map_err(|_| StsRefusal::Other("InvalidTag".to_owned()))?;
    let asked = client
        .assume_role()
        .role_arn(&session.role_arn)
        .role_session_name(&session.session_name)
        .policy(&session.policy)
        .duration_seconds(duration(session)?)
        .set_tags((!tags.is_empty()).then_some(tags))
        .source_identity(&session.source_identity);
    answered!(asked)
}

fn duration(session: &RenderedSession) -> Result<i32, StsRefusal> {
    i32::try_from(session.duration_seconds).map_err(|_| StsRefusal::Other("InvalidDuration".to_owned()))
}

/// INVARIANT: each setting that the SDK could look for elsewhere is given here: endpoint, region, credentials (or none at
/// all), retries and times.
fn client(
    (held, transport): (&Held, &Transport),
    session: &RenderedSession,
    credentials: Option<Credentials>,
) -> Client {
    let times = TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build();
    let retries = RetryConfig::standard()
        .with_max_attempts(MAX_ATTEMPTS)
        .with_initial_backoff(BACKOFF)
        .with_max_backoff(BACKOFF);
    let mut config = Config::builder()
        .behavior_version_latest()
        .http_client(transport.clone())
        .region(Region::new(session.region.clone()))
        .endpoint_url(endpoint(&held.settings, session))
        .retry_config(retries)
        .timeout_config(times)
        // Answers are read whole before the SDK sees them.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .identity_cache(IdentityCache::no_cache());
    if let Some(credentials) = credentials {
        config = config.credentials_provider(credentials);
    }
    Client::from_conf(config.build())
}

/// A region's own endpoint: the global one would make all sessions depend on one region, and STS recommends none.
pub(super) fn endpoint(settings: &StsSettings, session: &RenderedSession) -> String {
    let own = if session.role_arn.starts_with("arn:aws-cn:") { CHINA } else { REGIONAL };
    settings.endpoint.as_deref().unwrap_or(own).replace("{region}", &session.region)
}

/// Reads the keys. For each call: that costs little beside it, and what was replaced holds at once.
fn read(keys: &UserKeys) -> Result<Credentials, StsRefusal> {
    let secret = secret(&keys.secret_access_key_file)?;
    let token = keys.session_token_file.as_deref().map(self::secret).transpose()?;
    let token = token.map(|token| token.to_string());
    Ok(Credentials::new(&keys.access_key_id, secret.to_string(), token, None, "deputize"))
}

fn secret(file: &Path) -> Result<Zeroizing<String>, StsRefusal> {
    let unreadable = |error: &dyn std::fmt::Display| {
        tracing::error!(file = %file.display(), %error, "keys for AWS cannot be read");
        StsRefusal::Other("KeysUnreadable".to_owned())
    };
    let bytes = key_files::read_private(file).map_err(|error| unreadable(&error))?;
    let bytes = bytes.ok_or_else(|| unreadable(&"it is not there"))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(&error))?.trim();
    if text.is_empty() || text.len() > MAX_SECRET_BYTES {
        return Err(unreadable(&"it is empty or too long"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// A session token.
const MAX_SECRET_BYTES: usize = 16 * 1024;
const REGIONAL: &str = "https://sts.{region}.amazonaws.com";
const CHINA: &str = "https://sts.{region}.amazonaws.com.cn";
const MAX_ATTEMPTS: u32 = 2;
/// At most, before the second attempt.
const BACKOFF: Duration = Duration::from_millis(200);
const OPERATION_TIMEOUT: Duration = Duration::from_millis(4500);
