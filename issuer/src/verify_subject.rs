//! Stage 3: for whom. A user's token of a trusted identity provider, or a tool-call token of ours at a next hop.

use deputize_call::{
    claims::{Actor, PresentedBy, ToolCallClaims},
    json, token,
};
use std::sync::Arc;

use crate::{
    authenticate::Caller,
    client::{Addressees, Client, PresentedActor},
    desk::Desk,
    error::IssueError,
    person::Person,
    provider::{SubjectTokenType, UserTokenError, VerifiedUserToken},
    revocation::Revoked,
};

/// The tokens that an exchange brings, as sent.
#[derive(Clone, Copy)]
pub struct PresentedSubject<'a> {
    /// `subject_token`.
    pub token: &'a str,
    /// `subject_token_type`.
    pub kind: SubjectTokenType,
    /// `actor_token` with `actor_token_type`, where the caller is not the agent itself.
    pub actor: Option<(&'a str, SubjectTokenType)>,
}

/// For whom, and on behalf of which chain of agents. Made by [`verify_subject`] alone.
#[derive(Debug)]
pub struct Subject {
    person: Arc<Person>,
    act: Actor,
    expires_at: u64,
    parent: Option<Box<Parent>>,
    bearer: Option<PresentedBy>,
}

/// The token of ours that a next hop comes from.
#[derive(Debug)]
pub struct Parent {
    /// Its claims.
    pub claims: ToolCallClaims,
    /// Who brought it.
    pub bearer: Bearer,
}

/// In which capacity somebody brings a token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// The server that it was made for: a next hop.
    Audience,
    /// The client that it was made for, with its key: may only narrow.
    Holder,
}

/// Verifies the subject token, the actor token if there is one, and that this caller may bring them.
///
/// # Errors
/// [`IssueError::SubjectToken`] whatever is wrong with them (RFC 8693 §2.2.2); [`IssueError::UpstreamUnavailable`]
/// while an identity provider's keys were never had.
pub async fn verify_subject(
    desk: &Desk,
    caller: &Caller,
    presented: &PresentedSubject<'_>,
) -> Result<Subject, IssueError> {
    if presented.token.len() > deputize_call::jws::MAX_TOKEN_BYTES {
        return Err(refuse("subject_token_too_large"));
    }
    let subject = if names_issuer(presented.token, &desk.settings.issuer) {
        own_token(desk, caller, presented)?
    } else if caller.client().accepts_bearer.is_empty() {
        user_token(desk, caller, presented).await?
    } else {
        presented_token(desk, caller, presented).await?
    };
    if subject.person.tenant != caller.client().tenant {
        return Err(refuse("subject_of_another_tenant"));
    }
    Ok(subject)
}

async fn user_token(
    desk: &Desk,
    caller: &Caller,
    presented: &PresentedSubject<'_>,
) -> Result<Subject, IssueError> {
    let client = caller.client();
    let rules = desk.rules.load_full();
    let addressees = Addressees::new(&rules.registry, &desk.settings.issuer);
    // What is configured is checked when it is loaded. This is what must not happen whatever it says.
    if addressees.among(&client.subject_audiences).is_some() {
        return Err(refuse("subject_audience_of_another"));
    }
    let verified = rules
        .providers
        .verify(
            presented.token,
            presented.kind,
            &client.tenant,
            &client.subject_audiences,
            desk.clock.now_seconds(),
        )
        .await
        .map_err(from_user_token)?;
    // Made for a client and for a server as well, it may have been presented there as it stands.
    if addressees.among(&verified.audiences).is_some() {
        return Err(refuse("subject_token_for_another"));
    }
    if verified.bound_to.as_ref().is_some_and(|bound| !caller.holds(bound)) {
        // A sender-constrained user token is good in its sender's hands alone (RFC 9449 §6).
        return Err(refuse("subject_token_bound_to_another_key"));
    }
    let acting = acting_party(desk, caller, presented.actor).await?;
    check_may_act(desk, &verified, &acting, client)?;
    let act = extend_chain(acting.name(client), verified.act)?;
    let (person, expires_at) = (verified.person, verified.expires_at);
    Ok(Subject { person, act, expires_at, parent: None, bearer: None })
}

/// A user's access token that somebody presented to a server as it stands (RFC 6750), brought by that server's guard.
/// Whoever holds it can present it, so what is made of it says so, here and at every later hop.
async fn presented_token(
    desk: &Desk,
    caller: &Caller,
    presented: &PresentedSubject<'_>,
) -> Result<Subject, IssueError> {
    let client = caller.client();
    let resource = client.server.as_deref().ok_or(IssueError::Target("client_is_no_server"))?;
    if presented.kind == SubjectTokenType::IdToken {
        return Err(refuse("subject_token_type"));
    }
    if presented.actor.is_some() {
        return Err(refuse("actor_token_beside_a_bearer_token"));
    }
    let accepted = (resource, client.accepts_bearer.as_slice());
    let rules = desk.rules.load_full();
    let verified = rules
        .providers
        .verify_presented(presented.token, &client.tenant, accepted, desk.clock.now_seconds())
        .await
        .map_err(from_user_token)?;
    if verified.bound_to.is_some() {
        // RFC 9449 §7.2: a bound token is never taken as a bearer token. Its sender has the key, so can exchange itself.
        return Err(refuse("subject_token_bound_to_another_key"));
    }
    let Some(party) = verified.party.clone() else { return Err(refuse("authorized_party")) };
    check_may_act(desk, &verified, &Acting::Client, client)?;
    let act = extend_chain(client.actor(), verified.act)?;
    let bearer = Some(PresentedBy { iss: verified.person.issuer.clone(), client: party.as_ref().to_owned() });
    Ok(Subject { person: verified.person, act, expires_at: verified.expires_at, parent: None, bearer })
}

/// A tool-call token as subject: from its audience, for the next hop, or from its holder, to narrow it.
fn own_token(desk: &Desk, caller: &Caller, presented: &PresentedSubject<'_>) -> Result<Subject, IssueError> {
    if presented.kind == SubjectTokenType::IdToken {
        return Err(refuse("subject_token_type"));
    }
    if presented.actor.is_some() {
        return Err(refuse("actor_token_at_a_next_hop"));
    }
    let expected = token::Expected {
        issuer: &desk.settings.issuer,
        audience: None,
        now_seconds: desk.clock.now_seconds(),
        // Ours was made on this clock: no grace, so that a child never outlives its parent.
        leeway_seconds: 0,
    };
    let claims = token::verify(presented.token, &desk.keys.ring().published, &expected)
        .map_err(|error| IssueError::SubjectToken {
            reason: "subject_token_invalid",
            detail: error.to_string(),
        })?
        .into_claims();
    if desk.is_revoked(&claims) {
        return Err(refuse("subject_token_revoked"));
    }
    let bearer = bearer_of(caller, &claims).ok_or(refuse("subject_token_of_another_party"))?;
    let Some(current) = claims.act.clone() else {
        return Err(refuse("subject_token_without_actor"));
    };
    let person = desk.lineage.person(&claims.jti).ok_or(refuse("subject_unknown_since_restart"))?;
    let rules = desk.rules.load();
    // Whoever got a token that this one was made from must still be somebody, too: who is taken out at the beginning of
    // a chain has nothing more done in its name at the end.
    let (known, clients) = (desk.known(&rules), desk.lineage.clients_before(&claims.jti));
    if known.enabled(&claims.client_id).is_none() || clients.iter().any(|id| known.enabled(id).is_none()) {
        return Err(refuse("subject_token_of_a_disabled_client"));
    }
    if !rules.providers.trusts(&person.issuer) {
        return Err(refuse("subject_issuer_no_longer_trusted"));
    }
    let is_its_own = claims.bearer.is_some() && current.sub == caller.client().actor();
    let act = match bearer {
        // The server goes on with what its guard began in its name: one actor, not two.
        Bearer::Audience if is_its_own => current,
        Bearer::Audience => extend_chain(caller.client().actor(), Some(current))?,
        Bearer::Holder => current,
    };
    let (expires_at, presented_by) = (claims.exp, claims.bearer.clone());
    let parent = Some(Box::new(Parent { claims, bearer }));
    Ok(Subject { person, act, expires_at, parent, bearer: presented_by })
}

/// The audience needs no proof of the caller's key, its own authentication suffices; anyone else
/// needs the token's key.
fn bearer_of(caller: &Caller, claims: &ToolCallClaims) -> Option<Bearer> {
    let client = caller.client();
    if client.server.as_deref() == Some(claims.aud.as_str()) {
        return Some(Bearer::Audience);
    }
    (claims.client_id == client.id && caller.holds(&claims.cnf)).then_some(Bearer::Holder)
}

/// Who acts for the user.
enum Acting {
    /// The client itself, under its configured name.
    Client,
    /// The actor whose token it brought and is configured to present.
    Presented(PresentedActor),
}

async fn acting_party(
    desk: &Desk,
    caller: &Caller,
    actor_token: Option<(&str, SubjectTokenType)>,
) -> Result<Acting, IssueError> {
    let Some((token, kind)) = actor_token else { return Ok(Acting::Client) };
    let client = caller.client();
    let rules = desk.rules.load_full();
    // Its sole audience is this broker, whatever else the client may bring.
    // Who it was issued to (`azp`) is the actor itself, as configured.
    let mut ours = vec![desk.settings.issuer.clone()];
    ours.extend(client.presents_actors.iter().map(|actor| actor.subject.clone()));
    let verified = rules
        .providers
        .verify_actor(token, kind, &client.tenant, &ours, desk.clock.now_seconds())
        .await
        .map_err(|error| match from_user_token(error) {
            IssueError::SubjectToken { detail, .. } => {
                IssueError::SubjectToken { reason: "actor_token_invalid", detail }
            }
            other => other,
        })?;
    if *verified.audiences != [desk.settings.issuer.as_str()] {
        return Err(refuse("actor_token_audience"));
    }
    if verified.bound_to.as_ref().is_some_and(|bound| !caller.holds(bound)) {
        return Err(refuse("actor_token_bound_to_another_key"));
    }
    if verified.act.is_some() {
        // There is no place for a second chain in the new token, and nobody may drop out of the first.
        return Err(refuse("actor_token_delegated"));
    }
    client
        .presents_actors
        .iter()
        .find(|actor| {
            Person::encode_sub(&client.tenant, &actor.issuer, &actor.subject) == verified.person.sub
        })
        .map(|actor| Acting::Presented(actor.clone()))
        .ok_or(refuse("actor_not_configured_for_client"))
}

/// RFC 8693 §4.4: honoured with and without `actor_token`; every part that is there must match.
fn check_may_act(
    desk: &Desk,
    verified: &VerifiedUserToken,
    acting: &Acting,
    client: &Client,
) -> Result<(), IssueError> {
    let Some(may_act) = &verified.may_act else { return Ok(()) };
    let in_names_of = |issuer: &str| may_act.iss.as_ref().is_none_or(|iss| iss == issuer);
    let ours = in_names_of(&desk.settings.issuer) && may_act.sub == acting.name(client);
    let named = match acting {
        Acting::Client => ours || (in_names_of(&desk.settings.issuer) && may_act.sub == client.id),
        // Who only carries another's token is not thereby who may act: the actor itself must be named, in our words
        // or in its own issuer's, which without `iss` is that of the token it stands in.
        Acting::Presented(actor) => {
            let issuer = may_act.iss.as_ref().unwrap_or(&verified.person.issuer);
            ours || (*issuer == actor.issuer && may_act.sub == actor.subject)
        }
    };
    let by_this_client = may_act.client_id.as_ref().is_none_or(|id| *id == client.id);
    if named && by_this_client { Ok(()) } else { Err(refuse("may_act_names_another")) }
}

/// RFC 8693 §4.1: the actor that acts now, its predecessors nested inside; at most [`MAX_CHAIN`], no loops.
fn extend_chain(actor: &str, previous: Option<Actor>) -> Result<Actor, IssueError> {
    if let Some(previous) = &previous {
        if previous.chain().any(|earlier| earlier == actor) {
            return Err(refuse("actor_chain_loops"));
        }
        if previous.chain().take(MAX_CHAIN).count() >= MAX_CHAIN {
            return Err(refuse("actor_chain_too_deep"));
        }
    }
    Ok(Actor { sub: actor.to_owned(), act: previous.map(Box::new) })
}

/// Whether an unverified token says that it is of this issuer; decides who verifies it, nothing more.
fn names_issuer(token: &str, issuer: &str) -> bool {
    let claims = token.split('.').nth(1).and_then(|part| {
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, part).ok()
    });
    claims
        // Ours write it plainly. Most tokens are users' and need not be parsed here for that.
        .filter(|claims| std::str::from_utf8(claims).is_ok_and(|claims| claims.contains(issuer)))
        .and_then(|claims| json::parse_object(&claims).ok())
        .is_some_and(|claims| claims.get("iss").and_then(serde_json::Value::as_str) == Some(issuer))
}

fn from_user_token(error: UserTokenError) -> IssueError {
    if matches!(error, UserTokenError::KeysUnavailable(_)) {
        return IssueError::UpstreamUnavailable("identity_provider_keys_unavailable");
    }
    IssueError::SubjectToken { reason: error.reason(), detail: error.to_string() }
}

fn refuse(reason: &'static str) -> IssueError {
    IssueError::SubjectToken { reason, detail: String::new() }
}

impl Acting {
    /// What `act.sub` says.
    fn name<'a>(&'a self, client: &'a Client) -> &'a str {
        match self {
            Self::Client => client.actor(),
            Self::Presented(actor) => &actor.actor,
        }
    }
}

impl std::fmt::Debug for PresentedSubject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresentedSubject").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Subject {
    /// The person.
    pub fn person(&self) -> &Arc<Person> {
        &self.person
    }
    /// Who acts, with predecessors.
    pub fn act(&self) -> &Actor {
        &self.act
    }
    /// When the token that was brought expires.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }
    /// The client that presented the person's token to a server as it stood, where that is how this began.
    pub fn bearer(&self) -> Option<&PresentedBy> {
        self.bearer.as_ref()
    }
    /// The token of ours that this hop comes from.
    pub fn parent(&self) -> Option<&Parent> {
        self.parent.as_deref()
    }
}

impl Desk {
    /// Whether a token, an ancestor of it, its transaction or its person is revoked.
    pub fn is_revoked(&self, claims: &ToolCallClaims) -> bool {
        // With more ancestors than can be looked at, one of them may be revoked.
        let Some(ancestors) = self.lineage.with_ancestors(&claims.jti) else { return true };
        let mut what: Vec<Revoked> = ancestors.into_iter().map(Revoked::Token).collect();
        what.extend(claims.pjti.clone().map(Revoked::Token));
        what.push(Revoked::Transaction(claims.txn.clone()));
        what.push(Revoked::Person(claims.sub.clone()));
        self.revocations.any_revoked(&what)
    }
}

/// The most actors in a chain.
pub const MAX_CHAIN: usize = 5;
