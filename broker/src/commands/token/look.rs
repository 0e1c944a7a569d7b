//! What a token says of itself. Nothing here is verified.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::{
    claims::{Actor, GrantedDetail},
    json::{self, Object},
    jws::MAX_TOKEN_BYTES,
    level::Level,
};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;

use crate::commands::{
    exit::CommandError,
    moment,
    output::{Facts, clean},
};

/// A token, taken apart.
#[derive(Debug, Serialize)]
pub(super) struct Look {
    /// What it seems to be.
    kind: &'static str,
    /// Binding level of a tool-call token.
    level: Option<Level>,
    /// In words.
    good_for: Option<String>,
    /// Who acts, then who acted before.
    actors: Vec<String>,
    /// Whether its `exp` has passed.
    expired: Option<bool>,
    header: Object,
    claims: Option<Object>,
    #[serde(skip)]
    times: Vec<(&'static str, String)>,
}

impl Look {
    /// Takes a token apart, leniently: what is wrong with it should be seen.
    pub(super) fn at(token: &str, now: u64) -> Result<Self, CommandError> {
        let no_token = |what: &str| {
            CommandError::failure(what, "give a compact JWT: three parts of base64url with dots between them")
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Err(no_token("longer than any token"));
        }
        let parts: Vec<&str> = token.split('.').collect();
        let header = parts
            .first()
            .and_then(|part| object(part))
            .ok_or_else(|| no_token("not a token: its header is no JSON object"))?;
        let claims = match parts.as_slice() {
            [_, claims, _] => Some(object(claims).ok_or_else(|| no_token("its claims are no JSON object"))?),
            [_, _, _, _, _] => None,
            _ => return Err(no_token("not three parts, nor five")),
        };
        let mut look = Self {
            kind: "encrypted token (JWE): what is inside cannot be seen",
            level: None,
            good_for: None,
            actors: Vec::new(),
            expired: None,
            header,
            claims: None,
            times: Vec::new(),
        };
        if let Some(claims) = claims {
            look.read(claims, now);
        }
        Ok(look)
    }

    fn read(&mut self, claims: Object, now: u64) {
        let detail = claims.get("authorization_details").and_then(|details| details.get(0));
        let detail: Option<GrantedDetail> =
            detail.and_then(|detail| serde_json::from_value(detail.clone()).ok());
        self.kind = kind(&self.header, &claims, detail.is_some());
        self.level = detail.as_ref().map(GrantedDetail::level);
        self.good_for = detail.as_ref().map(good_for);
        let act: Option<Actor> = claims.get("act").and_then(|act| serde_json::from_value(act.clone()).ok());
        // Chains are short; one that is not is a trick.
        self.actors = act.iter().flat_map(|act| act.chain().take(32)).map(str::to_owned).collect();
        let time = |name| claims.get(name).and_then(Value::as_u64);
        self.expired = time("exp").map(|exp| exp <= now);
        self.times = ["iat", "nbf", "exp", "auth_time"]
            .into_iter()
            .filter_map(|name| Some((name, relative(time(name)?, now))))
            .collect();
        self.claims = Some(claims);
    }

    /// For people.
    pub(super) fn to_text(&self) -> String {
        let mut facts = Facts::default();
        facts.add("kind", self.kind);
        let header = |name| self.header.get(name).and_then(Value::as_str);
        facts.add_some(
            "signed with",
            header("alg").map(|alg| match header("kid") {
                Some(kid) => format!("{alg}, key {kid}"),
                None => alg.to_owned(),
            }),
        );
        let claim = |name| self.claims.as_ref().and_then(|claims| claims.get(name));
        let text = |name| claim(name).and_then(Value::as_str);
        facts.add_some("issuer", text("iss")).add_some("for", text("sub"));
        facts.add_some(
            "audience",
            claim("aud").map(|aud| aud.as_str().map_or_else(|| aud.to_string(), str::to_owned)),
        );
        facts.add_some("client", text("client_id").or(text("azp")));
        if let Some((first, before)) = self.actors.split_first() {
            facts.add("acting", first);
            for actor in before {
                facts.add("after", actor);
            }
        }
        facts.add_some("level", self.level.map(Level::as_str)).add_some("good for", self.good_for.as_deref());
        let bound = claim("cnf").and_then(Value::as_object).and_then(|cnf| cnf.iter().next());
        facts.add_some("bound to", bound.map(|(how, key)| format!("{how} {}", key.as_str().unwrap_or("?"))));
        facts.add_some("transaction", text("txn"));
        let place =
            claim("log").and_then(|log| Some((log.get("origin")?.as_str()?, log.get("index")?.as_u64()?)));
        facts.add_some("record", place.map(|(origin, index)| format!("{index} in log {origin}")));
        for (name, time) in &self.times {
            facts.add(name, time);
        }
        let mut shown = facts.to_string();
        self.write_rest(&mut shown);
        shown
    }

    fn write_rest(&self, shown: &mut String) {
        let Some(claims) = &self.claims else { return };
        let _ = writeln!(shown, "  claims");
        for line in serde_json::to_string_pretty(claims).unwrap_or_default().lines() {
            let _ = writeln!(shown, "    {}", clean(line));
        }
    }
}

fn kind(header: &Object, claims: &Object, tool_call: bool) -> &'static str {
    let typ = header.get("typ").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    match typ.strip_prefix("application/").unwrap_or(&typ) {
        "at+jwt" if tool_call => "tool-call token",
        "at+jwt" => "access token (RFC 9068)",
        "dpop+jwt" => "DPoP proof (RFC 9449)",
        _ if claims.contains_key("nonce") || claims.contains_key("at_hash") => "ID token (OpenID Connect)",
        _ if claims.get("iss").is_some() && claims.get("iss") == claims.get("sub") => {
            "client assertion (RFC 7523)"
        }
        _ => "JWT",
    }
}

fn good_for(detail: &GrantedDetail) -> String {
    let [server] = &detail.locations;
    let tool = detail.identifier.as_deref().unwrap_or("?");
    let uses = detail.max_uses.map(|uses| format!(", {uses} times at most")).unwrap_or_default();
    match detail.level() {
        Level::L0 => format!("discovery and listing on {server}"),
        Level::L1 => format!("{tool} on {server}, with any arguments{uses}"),
        Level::L2 => format!("{tool} on {server}, with arguments within its constraints{uses}"),
        Level::L3 => format!("one call of {tool} on {server}, with exactly the digested arguments, once"),
    }
}

fn relative(at: u64, now: u64) -> String {
    let (distance, words) = if at > now { (at - now, "from now") } else { (now - at, "ago") };
    let distance = match distance {
        0..=119 => format!("{distance} s"),
        120..=7199 => format!("{} min", distance / 60),
        7200..=172_799 => format!("{} h", distance / 3600),
        _ => format!("{} days", distance / 86_400),
    };
    format!("{} ({distance} {words})", moment::format_seconds(at))
}

fn object(part: &str) -> Option<Object> {
    json::parse_object(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
