//! What exchanges are measured with: a desk with a hundred policies, what is asked, and many at once.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::sign::SigningKey;
use deputize_issuer::{
    ask::{Ask, CallAsk, Claimed, ResourceUri},
    authenticate::{Possession, Presented, authenticate},
    clock::{Clock, new_id},
    decide::Application,
    desk::Desk,
    issue::issue,
    provider::SubjectTokenType,
    record::Audit,
    replay::EmbeddedReplay,
    verify_subject::{PresentedSubject, verify_subject},
};
use std::{cell::Cell, collections::HashMap, fmt::Write, hint::black_box, rc::Rc, sync::Arc, time::Duration};

use crate::{
    measure::{Begun, Cost},
    world::{CRM, Setup},
};

/// Keys by name, as the world has them.
pub(crate) type SetupKeys = HashMap<String, Arc<SigningKey>>;

/// A desk with these keys, as production has it but for where its records go; `change` comes last.
pub(crate) fn desk(
    keys: &SetupKeys,
    clock: &Arc<dyn Clock>,
    audit: Arc<dyn Audit>,
    change: impl FnOnce(&mut Setup),
) -> Rc<Desk> {
    let mut setup = Setup::new();
    setup.keys.clone_from(keys);
    let platform = keys["platform"].public().clone();
    setup.find_client("platform").keys = deputize_call::keys::KeySet::new(vec![platform]);
    setup.policies = policies();
    setup.settings.proof_window_seconds = 300;
    setup.once_capacity = 4_000_000;
    for role in (0..ROLES).step_by(2) {
        setup.providers[0].claims.roles.insert(format!("r{role}"), vec!["staff".to_owned()]);
    }
    change(&mut setup);
    let replay = EmbeddedReplay::new(Arc::clone(clock), Duration::from_secs(310), 4_000_000);
    Rc::new(setup.desk(Arc::clone(clock), audit, Arc::new(replay)).0)
}

/// So many requests, 64 at a time, on the thread of a `LocalSet`.
pub(crate) async fn run<F>(requests: usize, one: impl Fn(usize) -> F + 'static) -> Cost
where
    F: Future<Output = String> + 'static,
{
    let (next, one) = (Rc::new(Cell::new(0)), Rc::new(one));
    let begun = Begun::now();
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (next, one) = (Rc::clone(&next), Rc::clone(&one));
            tokio::task::spawn_local(async move {
                loop {
                    let number = next.replace(next.get() + 1);
                    if number >= requests {
                        break;
                    }
                    black_box(one(number).await);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    begun.cost()
}

/// What a door does between reading the form and writing the answer.
pub(crate) async fn exchange(
    desk: &Desk,
    presented: Presented<'_>,
    shown: Possession<'_>,
    subject: &str,
) -> String {
    let ask = ask();
    let decision_id = new_id(desk.clock.as_ref()).unwrap();
    let caller = authenticate(desk, decision_id, presented, shown).await.unwrap();
    let presented = PresentedSubject { token: subject, kind: SubjectTokenType::AccessToken, actor: None };
    let subject = verify_subject(desk, &caller, &presented).await.unwrap();
    let application = Application { decision_id, caller: &caller, subject: Some(&subject), ask: &ask };
    issue(desk, &application).await.unwrap().access_token.expose().clone()
}

/// As the door reads it from the form.
pub(crate) fn ask() -> Ask {
    let resource = ResourceUri::parse(CRM).unwrap();
    let call = CallAsk::parse(Some(DETAILS), &resource).unwrap();
    Ask { resource, scope: None, call, transaction_id: None, approval_id: None, claimed: Claimed::default() }
}

/// The key as verification alone needs it.
pub(crate) fn parsed(key: &SigningKey) -> ParsedPublicKey {
    let jwk = key.public().to_jwk();
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).parse().unwrap()
}

/// A hundred policies: four for everybody, the rest for a role on a server; a tenth forbids.
fn policies() -> String {
    let mut text = String::from(
        r#"
        permit (principal, action == Action::"tools/call", resource)
        when { !context.has_arguments || (context.text.hasTag("id") && context.text.getTag("id") like "c*") };
        forbid (principal, action == Action::"tools/call", resource)
        when { context.binding == "bearer" && resource.tier_rank >= 1 };
        forbid (principal, action, resource) when { context.delegation_depth > 5 };
        forbid (principal, action, resource) when { context.risk_score >= 90 };
        "#,
    );
    for n in 4..POLICIES {
        let (effect, condition) = match n % 10 {
            0 => ("forbid", r#"when { context has host && context.host == "unknown" }"#),
            1..=5 => ("permit", "when { resource.tier_rank <= 1 }"),
            _ => ("permit", r#"when { resource.effect == "read" && context.risk_score < 50 }"#),
        };
        let (role, server) = (n % ROLES, ["crm", "mailer", "abroad", "ledger", "wiki"][n / ROLES % 5]);
        writeln!(
            text,
            "{effect} (principal in Role::\"r{role}\", action == Action::\"tools/call\", resource in Server::\"{server}\") {condition};"
        )
        .unwrap();
    }
    text
}

const DETAILS: &str = r#"[{"type":"mcp_tool_call","locations":["https://crm.example.com/mcp"],"actions":["tools/call"],
    "identifier":"update_contact","arguments":{"id":"c4711","name":"Ann Example"}}]"#;
pub(crate) const POLICIES: usize = 100;
const ROLES: usize = 10;
pub(crate) const REQUESTS: usize = 3_000;
pub(crate) const IN_FLIGHT: usize = 64;
pub(crate) const ROUNDS: usize = 7;
/// About as long as a tool-call token.
pub(crate) const TOKEN_BYTES: usize = 1_600;
