//! STS: a role for whoever brings a web identity, and who somebody is.

use serde_json::{Value, json};
use std::sync::Arc;

use super::{
    StandIn,
    answer::{Answer, Refusal, Service, element, text},
    form::Form,
    policy::Policy,
    role::{ACCOUNT, REGION, Role},
    sessions::{Session, new_keys},
    signature::Signed,
    trail::Event,
    web_identity::Federated,
};
use deputize_call::moment;

/// `AssumeRoleWithWebIdentity`. Not signed: the token says who comes.
pub(super) async fn assume_role_with_web_identity(aws: &StandIn, form: &Form) -> Result<Answer, Refusal> {
    let asked = Asked::read(form)?;
    let federated = aws.web_identity.verify(asked.token, aws.clock.now_seconds()).await;
    let assumed = match &federated {
        Ok(federated) => assume(aws, &asked, federated),
        Err(refusal) => Err(refusal.clone()),
    };
    aws.trail.record(event(aws, &asked, federated.as_ref().ok(), &assumed));
    let session = assumed?;
    let credentials = [
        text("AccessKeyId", &session.access_key_id),
        text("SecretAccessKey", session.secret_access_key.expose()),
        text("SessionToken", session.session_token.expose()),
        text("Expiration", &moment::format_seconds(session.expires_seconds)),
    ];
    let user = text("Arn", &session.arn()) + &text("AssumedRoleId", &session.assumed_role_id());
    let federated = federated?;
    let mut content = text("SubjectFromWebIdentityToken", &federated.subject);
    content += &text("Audience", &federated.audience);
    content += &element("AssumedRoleUser", &user);
    content += &element("Credentials", &credentials.concat());
    content += &text("Provider", &provider_arn(aws));
    if let Some(identity) = &session.source_identity {
        content += &text("SourceIdentity", identity);
    }
    if let Some(policy) = asked.policy {
        content += &text("PackedPolicySize", &packed_percent(policy).to_string());
    }
    Ok(Answer::Xml(content))
}

/// `GetCallerIdentity`: nothing can deny it.
pub(super) fn get_caller_identity(signed: &Signed) -> Answer {
    let session = &signed.session;
    Answer::Xml(
        text("Arn", &session.arn()) + &text("UserId", &session.assumed_role_id()) + &text("Account", ACCOUNT),
    )
}

/// What is asked, as far as it can be asked here.
struct Asked<'f> {
    role_arn: &'f str,
    session_name: &'f str,
    token: &'f str,
    policy: Option<&'f str>,
    duration_seconds: u64,
}

impl<'f> Asked<'f> {
    fn read(form: &'f Form) -> Result<Self, Refusal> {
        let known = ["RoleArn", "RoleSessionName", "WebIdentityToken", "Policy", "DurationSeconds"];
        form.only(&known)?;
        let needed = |name: &'static str| {
            form.get(name).ok_or_else(|| Refusal::new("ValidationError", format!("{name} is missing")))
        };
        let duration_seconds = match form.get("DurationSeconds") {
            None => DEFAULT_DURATION_SECONDS,
            Some(seconds) => {
                seconds.parse().ok().filter(|seconds| DURATIONS.contains(seconds)).ok_or_else(|| {
                    Refusal::new("ValidationError", "DurationSeconds must be from 900 to 3600 for this role")
                })?
            }
        };
        let asked = Self {
            role_arn: needed("RoleArn")?,
            session_name: needed("RoleSessionName")?,
            token: needed("WebIdentityToken")?,
            policy: form.get("Policy"),
            duration_seconds,
        };
        if !is_a_name(asked.session_name) {
            return Err(Refusal::new("ValidationError", "RoleSessionName has other characters than it may"));
        }
        if asked.policy.is_some_and(|policy| policy.chars().count() > MAX_POLICY_CHARACTERS) {
            return Err(Refusal::new("ValidationError", "Policy has more than 2048 characters"));
        }
        Ok(asked)
    }
}

fn assume(aws: &StandIn, asked: &Asked<'_>, federated: &Federated) -> Result<Arc<Session>, Refusal> {
    let denied = || Refusal::new("AccessDenied", "not authorized to perform sts:AssumeRoleWithWebIdentity");
    let role = aws.roles.iter().find(|role| role.arn == asked.role_arn).ok_or_else(denied)?;
    if !trusts(role, federated) {
        return Err(denied());
    }
    if federated.source_identity.as_deref().is_some_and(|identity| !is_a_name(identity)) {
        return Err(Refusal::new("ValidationError", "the source identity has other characters than it may"));
    }
    let policy = asked.policy.map(Policy::read).transpose();
    let policy = policy.map_err(|problem| Refusal::new("MalformedPolicyDocument", problem))?;
    let no_randomness = |_| Refusal::new("InternalFailure", "no randomness");
    let (access_key_id, secret_access_key, session_token) = new_keys().map_err(no_randomness)?;
    let now = aws.clock.now_seconds();
    let session = Arc::new(Session {
        access_key_id,
        secret_access_key,
        session_token,
        role: Arc::clone(role),
        name: asked.session_name.to_owned(),
        source_identity: federated.source_identity.clone(),
        policy,
        provider: aws.web_identity.name().to_owned(),
        created_seconds: now,
        expires_seconds: now.saturating_add(asked.duration_seconds),
    });
    if aws.sessions.hold(&session, now) {
        Ok(session)
    } else {
        Err(Refusal::new("Throttling", "there are too many sessions"))
    }
}

/// The role's trust policy: this audience, this subject, and where the token names roles, this role.
fn trusts(role: &Role, federated: &Federated) -> bool {
    federated.audience == AUDIENCE
        && federated.subject == role.trusted_subject
        && federated.roles.as_ref().is_none_or(|roles| roles.contains(&role.arn))
}

fn event(
    aws: &StandIn,
    asked: &Asked<'_>,
    federated: Option<&Federated>,
    assumed: &Result<Arc<Session>, Refusal>,
) -> Event {
    let subject = federated.map_or("", |federated| federated.subject.as_str());
    let audience = federated.map_or("", |federated| federated.audience.as_str());
    let session = assumed.as_ref().ok();
    Event {
        service: Service::Sts,
        name: "AssumeRoleWithWebIdentity",
        region: REGION.to_owned(),
        user: json!({
            "type": "WebIdentityUser",
            "principalId": format!("{}:{audience}:{subject}", provider_arn(aws)),
            "userName": subject,
            "identityProvider": provider_arn(aws),
        }),
        request: json!({
            "roleArn": asked.role_arn,
            "roleSessionName": asked.session_name,
            "durationSeconds": asked.duration_seconds,
            "policy": asked.policy,
            "principalTags": federated.map(|federated| &federated.tags),
        }),
        response: session.map_or(Value::Null, |session| {
            json!({
                "credentials": {
                    "accessKeyId": session.access_key_id,
                    "expiration": moment::format_seconds(session.expires_seconds),
                },
                "subjectFromWebIdentityToken": subject,
                "audience": audience,
                "sourceIdentity": session.source_identity,
                "assumedRoleUser": { "assumedRoleId": session.assumed_role_id(), "arn": session.arn() },
                "provider": provider_arn(aws),
            })
        }),
        refused: assumed.as_ref().err().cloned(),
    }
}

fn provider_arn(aws: &StandIn) -> String {
    format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{}", aws.web_identity.name())
}

/// `[\w+=,.@-]{2,64}`: what session names and source identities are made of.
fn is_a_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    (2..=64).contains(&text.len()) && text.bytes().all(fits)
}

/// How much of what STS has room for; how it really packs, STS alone knows.
fn packed_percent(policy: &str) -> usize {
    policy.len().saturating_mul(100).div_ceil(MAX_POLICY_CHARACTERS).min(100)
}

/// The audience that the roles' trust policies name.
const AUDIENCE: &str = "sts.amazonaws.com";
const DURATIONS: std::ops::RangeInclusive<u64> = 900..=3600;
const DEFAULT_DURATION_SECONDS: u64 = 3600;
const MAX_POLICY_CHARACTERS: usize = 2048;
