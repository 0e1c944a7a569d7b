//! The JWT-SVID profile (SPIFFE Workload API §6, JWT-SVID).

use super::{
    client::{Connection, Ended, INVALID_ARGUMENT, PERMISSION_DENIED},
    findings::Findings,
    messages::{
        JwtBundlesResponse, JwtSvidRequest, JwtSvidResponse, ValidateJwtSvidRequest, ValidateJwtSvidResponse,
    },
    spiffe_id,
    x509::{Told, no_repetition},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, Validation, jwk::Jwk};
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};

type Bundles = HashMap<String, Vec<Value>>;

/// Looks at the three methods of the profile, beside what the X.509 profile told.
pub(super) async fn examine(findings: &mut Findings, connection: &Connection, told: &Told, now_seconds: u64) {
    let bundles = examine_bundles(findings, connection, told).await;
    let Some(svids) = fetch(findings, connection).await else { return };
    let hints = svids.svids.iter().map(|svid| svid.hint.as_str());
    findings.holds("WLAPI-6.2.1-5", no_repetition(hints), "a hint stands twice");
    for svid in &svids.svids {
        let whole = !svid.spiffe_id.is_empty() && !svid.svid.is_empty();
        findings.holds("WLAPI-6.2.1-5", whole, "a field is empty");
        spiffe_id::examine(findings, &svid.spiffe_id);
        examine_token(findings, &svid.svid, &svid.spiffe_id, &bundles, now_seconds);
    }
    let ids: BTreeSet<_> = svids.svids.iter().map(|svid| svid.spiffe_id.clone()).collect();
    if !told.ids.is_empty() {
        let missing: Vec<_> = told.ids.difference(&ids).collect();
        findings.holds("WLAPI-6.2.1-2", missing.is_empty(), format!("none for {missing:?}"));
    }
    let Some(svid) = svids.svids.first() else { return };
    examine_one(findings, connection, &svid.spiffe_id).await;
    examine_refusals(findings, connection, &svid.svid).await;
    super::validate::examine(findings, connection, &svid.svid, &svid.spiffe_id).await;
}

async fn fetch(findings: &mut Findings, connection: &Connection) -> Option<JwtSvidResponse> {
    let question = JwtSvidRequest { audience: vec![AUDIENCE.to_owned()], spiffe_id: String::new() };
    let answer: Result<JwtSvidResponse, _> =
        connection.ask_once("FetchJWTSVID", Some("true"), &question).await;
    match answer {
        Ok(svids) => {
            findings.holds("WLAPI-6.2.1-5", !svids.svids.is_empty(), "there are no JWT-SVIDs");
            Some(svids)
        }
        Err(ended) => {
            findings.check("WLAPI-6.2.1-5", Err(ended.to_string()));
            None
        }
    }
}

async fn examine_one(findings: &mut Findings, connection: &Connection, id: &str) {
    let question = JwtSvidRequest { audience: vec![AUDIENCE.to_owned()], spiffe_id: id.to_owned() };
    let answer: Result<JwtSvidResponse, _> =
        connection.ask_once("FetchJWTSVID", Some("true"), &question).await;
    let outcome = answer.map_err(|ended| ended.to_string()).and_then(|svids| {
        let alone = !svids.svids.is_empty() && svids.svids.iter().all(|svid| svid.spiffe_id == id);
        if alone { Ok(()) } else { Err(format!("others than {id} came too, or none")) }
    });
    findings.check("WLAPI-6.2.1-3", outcome);
    let stranger = format!("spiffe://{}/{NOBODY}", spiffe_id::trust_domain(id));
    let question = JwtSvidRequest { audience: vec![AUDIENCE.to_owned()], spiffe_id: stranger };
    let answer = connection.ask_once::<JwtSvidResponse>("FetchJWTSVID", Some("true"), &question).await;
    findings.check("WLAPI-6.2.1-4", refused(answer, PERMISSION_DENIED));
}

async fn examine_refusals(findings: &mut Findings, connection: &Connection, svid: &str) {
    let nobody = JwtSvidRequest { audience: Vec::new(), spiffe_id: String::new() };
    let answer = connection.ask_once::<JwtSvidResponse>("FetchJWTSVID", Some("true"), &nobody).await;
    let said = |why| format!("FetchJWTSVID without an audience: {why}");
    findings.check("WLAPI-4.5-1", refused(answer, INVALID_ARGUMENT).map_err(said));
    for (audience, svid, what) in [("", svid, "an audience"), (AUDIENCE, "", "a token")] {
        let question = ValidateJwtSvidRequest { audience: audience.to_owned(), svid: svid.to_owned() };
        let answer =
            connection.ask_once::<ValidateJwtSvidResponse>("ValidateJWTSVID", Some("true"), &question);
        let said = |why| format!("ValidateJWTSVID without {what}: {why}");
        findings.check("WLAPI-4.5-1", refused(answer.await, INVALID_ARGUMENT).map_err(said));
    }
}

/// Whether it was refused with this status.
pub(super) fn refused<A>(answer: Result<A, Ended>, code: i32) -> Result<(), String> {
    match answer {
        Ok(_) => Err("it was answered".to_owned()),
        Err(ended) if ended.code() == Some(code) => Ok(()),
        Err(ended) => Err(ended.to_string()),
    }
}

async fn examine_bundles(findings: &mut Findings, connection: &Connection, told: &Told) -> Bundles {
    let answer = connection.first::<JwtBundlesResponse>("FetchJWTBundles", Some("true")).await;
    let answer = match answer {
        Ok(answer) => answer.bundles,
        Err(ended) => {
            findings.check("WLAPI-6.2.2-1", Err(ended.to_string()));
            return Bundles::new();
        }
    };
    for domain in &told.domains {
        let own = answer.contains_key(&format!("spiffe://{domain}"));
        findings.holds("WLAPI-6.2.2-1", own, format!("no bundle of {domain}"));
    }
    let mut bundles = Bundles::new();
    for (domain, bundle) in answer {
        let named = spiffe_id::is_of_trust_domain(&domain);
        findings.holds("WLAPI-6.2.2-1", named, format!("{domain:?} is not the SPIFFE ID of a trust domain"));
        let set: Value = serde_json::from_slice(&bundle).unwrap_or_default();
        let keys = set.get("keys").and_then(Value::as_array);
        findings.holds("BUNDLE-4.1.3-1", keys.is_some(), format!("{domain}: no `keys`"));
        for key in keys.into_iter().flatten() {
            examine_key(findings, key, &domain);
        }
        bundles.insert(domain, keys.cloned().unwrap_or_default());
    }
    bundles
}

fn examine_key(findings: &mut Findings, key: &Value, domain: &str) {
    let has = |member: &str| key.get(member).is_some();
    findings.holds("BUNDLE-4.2.1-1", has("kty"), format!("{domain}: a key without `kty`"));
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].into_iter().find(|member| has(member));
    findings.holds("BUNDLE-2-1", private.is_none(), format!("{domain}: a key has {private:?}"));
    // A standard JWK Set, so `use` may be missing (RFC 7517 §4.2).
    let other = key.get("use").is_some_and(|usage| usage != "jwt-svid" && usage != "sig");
    findings.holds("WLAPI-6.2.2-2", !other && !has("x5c"), format!("{domain}: a key for another use"));
}

fn examine_token(findings: &mut Findings, token: &str, id: &str, bundles: &Bundles, now_seconds: u64) {
    let parts: Vec<_> = token.split('.').collect();
    let member = |part: Option<&&str>| -> Option<Map<String, Value>> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part?).ok()?).ok()
    };
    let (Some(header), Some(claims), 3) = (member(parts.first()), member(parts.get(1)), parts.len()) else {
        findings.check("JWTSVID-5.1-1", Err(format!("{id}: not three parts of base64url with JSON")));
        return;
    };
    findings.check("JWTSVID-5.1-1", Ok(()));
    let others: Vec<_> =
        header.keys().filter(|name| !["alg", "kid", "typ"].contains(&name.as_str())).collect();
    findings.holds("JWTSVID-2-1", others.is_empty(), format!("the header has {others:?}"));
    let alg = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    findings.holds("JWTSVID-2.1-1", ALGORITHMS.contains(&alg), format!("`alg` is {alg:?}"));
    if let Some(typ) = header.get("typ") {
        findings.holds("JWTSVID-2.3-1", typ == "JWT" || typ == "JOSE", format!("`typ` is {typ}"));
    } else {
        findings.check("JWTSVID-2.3-1", Ok(()));
    }
    let subject = claims.get("sub");
    findings.holds("JWTSVID-3.1-1", subject.is_some_and(|sub| sub == id), format!("`sub` is {subject:?}"));
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    findings.holds("JWTSVID-3.2-1", !audiences.is_empty(), "there is no audience");
    findings.holds("WLAPI-6.2.1-1", audiences == [AUDIENCE], format!("the audience is {audiences:?}"));
    let expires = claims.get("exp").and_then(Value::as_f64);
    let to_come = expires.is_some_and(|at| at > now_seconds as f64);
    findings.holds("JWTSVID-3.3-1", to_come, format!("`exp` is {expires:?}"));
    findings.check("JWTSVID-4-1", verify(token, &header, id, bundles));
}

fn verify(token: &str, header: &Map<String, Value>, id: &str, bundles: &Bundles) -> Result<(), String> {
    let domain = format!("spiffe://{}", spiffe_id::trust_domain(id));
    let keys = bundles.get(&domain).ok_or_else(|| format!("there is no bundle of {domain}"))?;
    let kid = header.get("kid");
    let mut candidates = keys.iter().filter(|key| kid.is_none() || key.get("kid") == kid).peekable();
    candidates.peek().ok_or_else(|| format!("no key of {domain} has the id {kid:?}"))?;
    let verifies = |key: &Value| -> Option<()> {
        // `use` is SPIFFE's, which whoever reads a JWK does not know.
        let mut key = key.clone();
        key.as_object_mut()?.remove("use");
        let key: Jwk = serde_json::from_value(key).ok()?;
        let algorithm = header.get("alg")?.as_str()?.parse().ok()?;
        let mut validation = Validation::new(algorithm);
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims.clear();
        let key = DecodingKey::from_jwk(&key).ok()?;
        jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation).ok().map(drop)
    };
    candidates.find_map(verifies).ok_or_else(|| "no key of the bundle verifies the signature".to_owned())
}

/// The audience of the tokens that are asked for.
pub(super) const AUDIENCE: &str = "spiffe-conformance";
/// A path that no identity has.
const NOBODY: &str = "spiffe-conformance/nobody/has/this";
/// JWT-SVID §2.1.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];
