//! One question to the rules, and the checks of a decision in their order.

use deputize_call::{action::Action, json::Object, level::Level};
use deputize_issuer::{
    client::Client,
    clock::{Clock as _, SystemClock},
    person::Person,
    policy::{Binding, Claimed, Facts, PolicyEngine, Requirement},
    registry::{Registry, Server, Tier, Tool, Verifier},
    risk::{self, Look, Risk},
};
use std::{collections::BTreeMap, sync::Arc};

use super::{Answer, Args, Word};
use crate::{
    commands::exit::CommandError,
    config::resolved::{LoadedRules, Resolved, Upstream},
};

/// Who asks for what, for whom.
pub(super) struct Question {
    client: Client,
    person: Option<Person>,
    server: Arc<Server>,
    tool_name: Option<String>,
    arguments: Option<Object>,
    level: Level,
    acr: Option<String>,
    model: Option<String>,
    /// Who would present the person's own token.
    bearer: Option<String>,
    policies: PolicyEngine,
}

/// Why not, before any policy is asked.
type Refusal = (&'static str, Option<String>);

impl Question {
    /// Looks everything up.
    pub(super) fn of(
        args: &Args,
        resolved: &Resolved,
        arguments: Option<Object>,
    ) -> Result<Self, CommandError> {
        let LoadedRules { registry, policies, .. } = resolved.load_rules().map_err(|errors| {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            CommandError::configuration(all.join("\n"), "correct it; `deputize lint` checks everything")
        })?;
        let client =
            resolved.clients.iter().find(|client| client.id == args.client).cloned().ok_or_else(|| {
                let known = resolved.clients.iter().map(|client| client.id.as_str());
                unknown("--client", &args.client, known)
            })?;
        let server = find_server(&registry, &args.server)?;
        let person = args.user.as_deref().map(|user| person(args, user, &client, resolved)).transpose()?;
        let default = match (&args.tool, &arguments) {
            (None, _) => Level::L0,
            (Some(_), None) => Level::L1,
            (Some(_), Some(_)) => Level::L3,
        };
        Ok(Self {
            client,
            person,
            server,
            tool_name: args.tool.clone(),
            arguments,
            level: args.level.unwrap_or(default),
            acr: args.acr.clone(),
            model: args.model.clone(),
            bearer: args.bearer.clone(),
            policies,
        })
    }

    /// What would be decided.
    pub(super) fn answer(&self) -> Answer {
        let mut answer = Answer {
            answer: Word::No,
            reason: None,
            detail: None,
            policies: Vec::new(),
            errors: Vec::new(),
            requires: None,
            level: self.level,
            least_level: None,
            risk: None,
            roles: self.person.as_ref().map(|person| person.roles.clone()).unwrap_or_default(),
        };
        match self.check_target() {
            Err((reason, detail)) => (answer.reason, answer.detail) = (Some(reason), detail),
            Ok(tool) => {
                let risk = self.assess(tool);
                answer.least_level = tool.map(|tool| tool.least_level);
                answer.risk = Some(risk.clone());
                match tool.map_or(Ok(()), |tool| self.check_call(tool)) {
                    Err((reason, detail)) => (answer.reason, answer.detail) = (Some(reason), detail),
                    Ok(()) => self.ask_policy(tool, &risk, &mut answer),
                }
            }
        }
        answer
    }

    fn check_target(&self) -> Result<Option<&Tool>, Refusal> {
        let record = &self.server.record;
        if !self.client.enabled {
            return Err(("client_disabled", None));
        }
        if record.tenant != self.client.tenant {
            return Err((
                "server_of_another_tenant",
                Some(format!("{}, not {}", record.tenant, self.client.tenant)),
            ));
        }
        if !record.enabled {
            return Err(("server_disabled", None));
        }
        let tool = match &self.tool_name {
            None => None,
            Some(name) => {
                let tool = self.server.tool(name).filter(|tool| tool.record.enabled);
                let known: Vec<&str> = self.server.tools().map(|tool| tool.name.as_str()).collect();
                Some(tool.ok_or_else(|| ("tool_unknown", Some(format!("it has {}", known.join(", ")))))?)
            }
        };
        let target = self.tool_name.as_deref().map(|name| (Action::CallTool, name));
        match &self.bearer {
            Some(bearer) => self.check_presented(bearer)?,
            None if self.client.may_reach(&record.resource, target) => {}
            None => return Err(("beyond_the_clients_reach", None)),
        }
        if self.person.is_none() && self.level > Level::L0 {
            return Err(("client_credentials_beyond_listing", None));
        }
        Ok(tool.map(Arc::as_ref))
    }

    /// Whether this client is the server's, and accepts the person's tokens from whoever presents them.
    fn check_presented(&self, bearer: &str) -> Result<(), Refusal> {
        let record = &self.server.record;
        let is_its_own = self.client.server.as_deref() == Some(record.resource.as_str())
            && record.client_id.as_ref().is_none_or(|id| *id == self.client.id);
        if !is_its_own {
            return Err(("bearer_token_of_another_server", None));
        }
        let issuer = self.person.as_ref().map(|person| person.issuer.as_str());
        let accepted =
            self.client.accepts_bearer.iter().find(|accepted| Some(accepted.issuer.as_str()) == issuer);
        match accepted {
            None => Err(("issuer_not_trusted", Some("accepts_bearer does not name it".to_owned()))),
            Some(accepted) if accepted.admits(bearer) => Ok(()),
            Some(accepted) => {
                Err(("authorized_party", Some(format!("accepted are {}", accepted.clients.join(", ")))))
            }
        }
    }

    fn check_call(&self, tool: &Tool) -> Result<(), Refusal> {
        if self.level < tool.least_level {
            return Err((
                "level_too_low",
                Some(format!("{} is asked, {} is needed", self.level, tool.least_level)),
            ));
        }
        let tight = self.level > Level::L1 || tool.record.tier >= Tier::High;
        if self.server.record.verifier == Verifier::Rfc9068 && tight {
            return Err(("server_without_guard", None));
        }
        if let Some(arguments) = &self.arguments {
            tool.schema
                .validate(arguments)
                .map_err(|error| ("arguments_miss_the_schema", Some(error.to_string())))?;
        }
        let wanted = &tool.record.acr_values;
        let strong = wanted.is_empty() || self.acr.as_ref().is_some_and(|acr| wanted.contains(acr));
        if strong {
            Ok(())
        } else {
            Err(("user_authentication", Some(format!("acr must be {}", wanted.join(" or ")))))
        }
    }

    fn assess(&self, tool: Option<&Tool>) -> Risk {
        risk::assess(&Look {
            server: &self.server,
            tool,
            level: self.level,
            delegation_depth: 0,
            arguments_seen: self.arguments.is_some(),
        })
    }

    fn ask_policy(&self, tool: Option<&Tool>, risk: &Risk, answer: &mut Answer) {
        let verdict = self.policies.evaluate(&Facts {
            tenant: &self.client.tenant,
            person: self.person.as_ref(),
            client_id: &self.client.id,
            actor: self.client.actor(),
            actor_chain: &[],
            server: &self.server,
            tool,
            action: if tool.is_some() { "tools/call" } else { "tools/list" },
            level: self.level,
            binding: if self.bearer.is_some() { Binding::Bearer } else { Binding::Dpop },
            bearer_client: self.bearer.as_deref(),
            arguments: self.arguments.as_ref(),
            call_digest_only: self.level == Level::L3 && self.arguments.is_none(),
            constraints: None,
            claimed: Claimed { model: self.model.as_deref(), ..Claimed::default() },
            risk_score: risk.score,
            approval: None,
            data_classes_read: &[],
            now: SystemClock::start().now_seconds(),
        });
        (answer.policies, answer.errors) = (verdict.policy_ids, verdict.errors);
        if !verdict.allowed {
            answer.reason = Some("policy");
            return;
        }
        let by_tier = match tool.map(|tool| tool.record.tier) {
            Some(Tier::Critical) => Some(Requirement::Approve),
            Some(Tier::High) => Some(Requirement::Confirm),
            Some(Tier::Medium | Tier::Low) | None => None,
        };
        let requires = verdict.requires.into_iter().chain(by_tier).max();
        answer.requires = requires.map(Requirement::as_str);
        match requires {
            // There is nobody to ask as long as approvals are not configured.
            Some(_) => answer.reason = Some("approval_required"),
            None => answer.answer = Word::Yes,
        }
    }
}

fn find_server(registry: &Registry, name: &str) -> Result<Arc<Server>, CommandError> {
    let by_id = || registry.servers().find(|server| server.record.id == name);
    registry
        .server(name)
        .or_else(by_id)
        .cloned()
        .ok_or_else(|| unknown("--server", name, registry.servers().map(|server| server.record.id.as_str())))
}

fn person(args: &Args, user: &str, client: &Client, resolved: &Resolved) -> Result<Person, CommandError> {
    let mut of_tenant =
        resolved.providers.iter().filter(|upstream| upstream.provider.tenant == client.tenant);
    let upstream: &Upstream = match &args.issuer {
        Some(issuer) => {
            resolved.providers.iter().find(|upstream| upstream.provider.issuer == *issuer).ok_or_else(
                || {
                    unknown(
                        "--issuer",
                        issuer,
                        resolved.providers.iter().map(|upstream| upstream.provider.issuer.as_str()),
                    )
                },
            )?
        }
        None => match (of_tenant.next(), of_tenant.next()) {
            (Some(only), None) => only,
            _ => {
                return Err(CommandError::usage(
                    "which identity provider?",
                    "give --issuer, the `iss` of the user's tokens",
                ));
            }
        },
    };
    let provider = &upstream.provider;
    let mut roles = args.roles.clone();
    let mapped =
        provider.claims.roles.iter().filter(|(_, of)| of.iter().any(|group| args.groups.contains(group)));
    roles.extend(mapped.map(|(role, _)| role.clone()));
    roles.sort_unstable();
    roles.dedup();
    Ok(Person {
        tenant: provider.tenant.clone(),
        issuer: provider.issuer.clone(),
        sub: Person::encode_sub(&provider.tenant, &provider.issuer, user),
        groups: args.groups.iter().map(|group| format!("{}|{group}", provider.issuer)).collect(),
        roles,
        claims: BTreeMap::new(),
        acr: args.acr.clone(),
        amr: Vec::new(),
        auth_time: None,
    })
}

fn unknown<'k>(option: &str, given: &str, known: impl Iterator<Item = &'k str>) -> CommandError {
    let known: Vec<&str> = known.collect();
    let nearest = known.iter().map(|name| (strsim::damerau_levenshtein(given, name), *name)).min();
    let next = match nearest.filter(|(distance, _)| *distance <= 3) {
        Some((_, name)) => format!("did you mean {name}?"),
        None => format!("one of {}", known.join(", ")),
    };
    CommandError::usage(format!("{option}: {given:?} is not configured"), next)
}
