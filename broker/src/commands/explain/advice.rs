//! What to do about each reason for which something is refused.

/// What to do about a reason, as records have it.
pub fn what_to_do(reason: &str) -> &'static str {
    exactly(reason).unwrap_or_else(|| by_family(reason))
}

/// What to do about a reason for which a process was refused that acts by this registration entry: what a client's
/// registration says elsewhere, its entry says. `place` is where that stands, as far as it is known.
pub fn what_to_do_in_entry(reason: &str, place: &str) -> Option<String> {
    let what = match reason {
        "audience" | "authorized_party" => {
            "add the token's `aud` (and `azp`) to `exchange.subject_audiences` of PLACE, if its processes may bring such \
             tokens; `deputize doctor --token` shows both"
        }
        "beyond_the_clients_reach" => {
            "add the server (and tool) to `exchange.may_call` of PLACE, if its processes should reach it"
        }
        "beyond_a_predecessors_reach" => {
            "an agent earlier in the chain may not reach this: add it to its `may_call`, or to `exchange.may_call` of its \
             entry, if it should"
        }
        "server_of_another_tenant" | "subject_of_another_tenant" => {
            "process, user and server must be of one tenant: correct `exchange.tenant` of PLACE, or the registry"
        }
        "entry_without_exchange" => {
            "give PLACE an `exchange` (docs/workload-api.md), if its processes are to exchange users' tokens"
        }
        "entry_of_a_configured_client" => {
            "the SPIFFE ID is a client's of the configuration: take `exchange` out of PLACE, or that client out"
        }
        "entry_about_to_end" => "set a later `expires_at` in PLACE, if its processes should go on",
        "caller_changed_meanwhile" => "PLACE was changed while this was decided: ask again",
        "subject_audience_of_another" => {
            "take registered servers and the broker itself out of `exchange.subject_audiences` of PLACE"
        }
        "may_act_names_another" => {
            "the token's `may_act` names another party: let the identity provider name the SPIFFE ID of PLACE"
        }
        "subject_token_of_a_disabled_client" => {
            "an agent that the token came through is none any more: a client was disabled, or an entry deleted or ended"
        }
        _ => return None,
    };
    Some(what.replace("PLACE", place))
}

fn exactly(reason: &str) -> Option<&'static str> {
    ADVICE.iter().find(|(reasons, _)| reasons.contains(&reason)).map(|(_, next)| *next)
}

fn by_family(reason: &str) -> &'static str {
    const FAMILIES: [(&str, &str); 10] = [
        ("authorization_details", "correct authorization_details as `detail` says"),
        ("resource", "give exactly one `resource`: the server's URI, as it is registered"),
        ("scope", "leave `scope` out, or correct it"),
        (
            "proof",
            "make a fresh DPoP proof for this request with the nonce of the last answer (RFC 9449 §4.2, §8)",
        ),
        (
            "assertion",
            "make a fresh client assertion: `aud` is the issuer alone, five minutes at most, used once",
        ),
        ("subject", "look at the user's token with `deputize doctor --token`"),
        ("actor", "look at the actor's token with `deputize doctor --token`"),
        ("parameter", "correct the form: each parameter once, none empty"),
        (
            "csr",
            "make the signing request for a P-256, P-384, Ed25519 or RSA key, signed by that key, with no URI but the \
             entry's SPIFFE ID",
        ),
        ("client", "correct the client's authentication; `deputize client add` makes a key"),
    ];
    FAMILIES.into_iter().find(|(family, _)| reason.starts_with(family)).map_or(
        "correct the request as `reason` and `detail` say; `deputize can-i` tries it without issuing",
        |(_, next)| next,
    )
}

/// Advice by reasons.
const ADVICE: [(&[&str], &str); 70] = [
    (
        &["entry_without_exchange"],
        "give the entry an `exchange` (docs/workload-api.md), if its processes are to exchange users' tokens",
    ),
    (
        &["entry_of_a_configured_client"],
        "the SPIFFE ID is a client's of the configuration: take `exchange` out of the entry, or that client out",
    ),
    (&["entry_about_to_end"], "set a later `expires_at` in the entry, if its processes should go on"),
    (
        &["subject_audience_of_another"],
        "take registered servers and the broker itself out of `subject_audiences`: what is presented to a server its own guard alone brings (`accepts_bearer`)",
    ),
    (
        &["subject_token_for_another"],
        "the user's token is for a registered server, or the broker, as well: let the identity provider issue one for the application alone",
    ),
    (
        &["client_gone_meanwhile", "caller_changed_meanwhile"],
        "the configuration changed while this was decided: ask again",
    ),
    (
        &["tool_drifted"],
        "the server defines the tool otherwise than it was approved: `deputize audit query --kind drift` shows the difference; register the new definition and reload, or restore the server and lift it (POST /admin/drifted/lift)",
    ),
    (
        &["client_is_no_server"],
        "say `server` of the client, and `client_id` of the server's registry file, so that each names the other",
    ),
    (&["client_disabled"], "set `enabled: true` for the client, if it should be"),
    (
        &["policy"],
        "no policy permits it, or the one in `detail` forbids it: try it with `deputize can-i`, then change a policy or ask for less",
    ),
    (&["approval_required"], "a person would have to approve this call, and approvals are not configured"),
    (
        &["level_too_low"],
        "ask for a tighter token: give `arguments` (L3) or `constraints` (L2) in authorization_details",
    ),
    (
        &["user_authentication"],
        "let the user sign in again with the `acr_values` and `max_age` that the error names",
    ),
    (&["rate_limited"], "wait as Retry-After says; raise limits.client_per_second if the load is meant"),
    (
        &["server_unknown"],
        "register the server: a file in the registry folder whose `resource` is exactly the one asked for",
    ),
    (&["server_disabled"], "enable the server in its registry file, if it should be"),
    (
        &["server_of_another_tenant"],
        "client, user and server must be of one tenant: correct `tenant` in the client or the registry",
    ),
    (
        &["server_without_guard"],
        "put a guard in front of the server and say `verifier: guard`, or ask for a lower level",
    ),
    (&["tool_unknown"], "approve the tool: list it under `tools` of the server's registry file"),
    (
        &["beyond_the_clients_reach"],
        "add the server (and tool) to `may_call` of the client, if it should reach it",
    ),
    (
        &["beyond_a_predecessors_reach"],
        "an agent earlier in the chain may not reach this: add it to its `may_call`, if it should",
    ),
    (
        &["not_downstream", "above_the_downstream_level"],
        "list the next server, tool and level under `downstream` of the calling tool",
    ),
    (
        &["calling_tool_changed", "tool_changed"],
        "the definition changed since the token was made: exchange the user's token anew",
    ),
    (
        &["holder_asks_for_another_target", "wider_than_granted", "holder_multiplies_uses"],
        "a token can only be narrowed: exchange the user's token for this call instead",
    ),
    (&["scope_beyond_the_tool"], "leave `scope` out: the tool's own scope is granted anyway"),
    (
        &["arguments_miss_the_schema"],
        "correct the arguments as `detail` says: they must fit the approved inputSchema",
    ),
    (
        &["constraint_on_unknown_argument", "constraints_leave_an_argument_open"],
        "constrain exactly the arguments that the tool has, as `detail` says",
    ),
    (&["max_uses_beyond_the_record"], "ask for fewer uses, or raise `max_uses` of the tool in the registry"),
    (
        &["client_credentials_beyond_listing"],
        "bring a user's token: a client's own token is good for listing alone",
    ),
    (
        &["client_credentials_not_allowed"],
        "set `client_credentials: true` for the client, if it may list for itself",
    ),
    (&["issuer_not_trusted"], "add the issuer to identity_providers, spelled exactly as `iss` in the token"),
    (
        &["audience", "authorized_party"],
        "add the token's `aud` (and `azp`) to `subject_audiences` of the client, if it may bring such tokens; of a guard that brings what was presented to its server, `aud` is that server and `azp` stands under `accepts_bearer`; `deputize doctor --token` shows both",
    ),
    (
        &["bearer_token_of_another_server"],
        "a guard exchanges users' own tokens for its own server alone: `server` of the client and `client_id` of the registry file name each other",
    ),
    (&["expired", "subject_token_expired", "too_old"], "get a fresh token of the user"),
    (
        &["not_yet_valid", "issued_in_the_future"],
        "compare the clocks of the identity provider and this machine",
    ),
    (
        &["unknown_key", "signature"],
        "the token was not signed by a key that its issuer publishes: `deputize doctor --token` looks closer",
    ),
    (
        &["keys_unavailable", "identity_provider_keys_unavailable"],
        "make the identity provider's key set reachable from the broker; then try again",
    ),
    (
        &["subject_token_revoked", "person_disabled"],
        "it was revoked: `deputize audit query --kind revocation` says by whom",
    ),
    (
        &["subject_token_of_another_party"],
        "only the server that a token was made for, or the holder of its key, may bring it",
    ),
    (&["subject_unknown_since_restart"], "the broker restarted since: exchange the user's token anew"),
    (
        &["subject_token_bound_to_another_key"],
        "the user's token is bound to another key: prove possession of that one; a guard cannot, so it takes no bound token as a bearer token",
    ),
    (
        &["may_act_names_another"],
        "the token's `may_act` names another party: let the identity provider name this client or its actor",
    ),
    (
        &["actor_token_audience", "actor_not_configured_for_client"],
        "the actor token must be for this broker alone, and its subject under `presents_actors` of the client",
    ),
    (
        &["actor_chain_loops", "actor_chain_too_deep"],
        "an agent may act once in a chain, and five may act in all: shorten the chain",
    ),
    (&["transaction_too_old", "transaction_unknown"], "leave transaction_id out: a new transaction begins"),
    (&["assertion_replayed", "proof_replayed"], "make a new assertion and a new proof for every request"),
    (
        &["no_entry"],
        "no entry is for such a process, or none any longer: `deputize svid fetch --explain --pid PID` says what each one lacks, `deputize entry create` makes one",
    ),
    (
        &["node_banned"],
        "`deputize node ban --lift NODE` lets it be one again; `deputize node show NODE` says since when",
    ),
    (&["id_not_a_nodes"], "a node is spiffe://TRUST-DOMAIN/deputize/node/NAME, and not the broker's own"),
    (
        &["node_of_another_trust_domain", "id_not_a_workloads"],
        "an entry and its nodes are of our trust domain, and no ID below /deputize is a workload's: correct the entry",
    ),
    (
        &["audience_of_a_cloud"],
        "no JWT-SVID is for a cloud's token service: AWS credentials are for a tool call (`deputize aws creds`)",
    ),
    (
        &["audience_is_a_registered_resource"],
        "a registered server takes tool-call tokens: exchange a user's token for one (`deputize exchange`)",
    ),
    (
        &["audience_missing", "audience_too_long", "audience_malformed"],
        "ask for 1 to 16 audiences of at most 512 characters each",
    ),
    (
        &["authority_expired"],
        "what signs has ended and no other was made: `deputize keys ls`, and the broker's log says why",
    ),
    (&["clocks_disagree"], "the machine's clock jumped: let it settle, or restart the broker"),
    (
        &["groups"],
        "the identity provider left groups out or sends too many: configure it to send those that matter",
    ),
    (&["not_a_person"], "bring a token of a user, not one that an application got for itself"),
    (&["subject"], "configure `claims.stable` of the identity provider: the claim is missing in this token"),
    (
        &["no_template"],
        "no role template is for this call and person: `deputize templates simulate` says why one is not",
    ),
    (&["another_template"], "the server expects another template than the one for this call: see `detail`"),
    (&["account_not_allowed"], "add the account to `aws.accounts`, if its roles may be used"),
    (
        &["parameter_outside_its_type", "session_tag", "source_identity", "session_policy_too_long"],
        "a value of the call or of the person is none that the template takes: see `detail`, and try it with `deputize templates simulate`",
    ),
    (
        &["residency"],
        "person, server and role are not of one place: correct `region` of the registry file, or the template's `residency`",
    ),
    (
        &["window_over"],
        "the call's window is over: credentials are for one call; what takes longer needs another call",
    ),
    (
        &["parameter_left_open", "token_leaves_the_call_open", "other_arguments"],
        "AWS credentials are for one call: exchange for its exact arguments (L3), and ask with the same",
    ),
    (
        &["not_the_audience", "token_not_active", "not_redeemable"],
        "bring the token that this server was called with, while it lives, and authenticate as that server",
    ),
    (
        &["made_before_this_start"],
        "the broker restarted since, or another made the token: exchange the user's token anew",
    ),
    (
        &["sts_access_denied"],
        "the role's trust policy does not allow it: it must name our identity provider, the template's `sub`, and sts:TagSession and sts:SetSourceIdentity",
    ),
    (
        &["sts_invalid_identity_token", "sts_idp_communication"],
        "AWS must reach and trust the web identity's issuer: compare the account's identity provider with its discovery document and keys",
    ),
    (&["sts_throttled", "sts_timeout", "sts_unreachable"], "AWS STS cannot be asked now: try again"),
];

#[cfg(test)]
mod tests {
    use super::{what_to_do, what_to_do_in_entry};

    #[test]
    fn who_acts_by_an_entry_is_sent_to_the_entry() {
        let place = "entry \"desk\" (entries/desk.yaml)";
        for reason in [
            "audience",
            "authorized_party",
            "beyond_the_clients_reach",
            "server_of_another_tenant",
            "entry_without_exchange",
            "entry_about_to_end",
        ] {
            let advice = what_to_do_in_entry(reason, place).unwrap();
            assert!(advice.contains(place) && !advice.contains("client"), "{reason}: {advice}");
        }
        assert_eq!(what_to_do_in_entry("policy", place), None, "that is the same for all");
    }

    #[test]
    fn reasons_have_advice_of_their_own_or_of_their_family() {
        assert!(what_to_do("policy").contains("can-i"));
        assert!(what_to_do("authorization_details_digest").contains("authorization_details"));
        assert!(what_to_do("proof_stale").contains("DPoP"));
        assert!(what_to_do("no_entry").contains("--explain"));
        assert!(what_to_do("node_banned").contains("--lift"));
        assert!(what_to_do("audience_of_a_cloud").contains("aws creds"));
        assert!(what_to_do("csr_for_another_id").contains("SPIFFE ID"));
        assert!(!what_to_do("something_new").is_empty());
    }
}
