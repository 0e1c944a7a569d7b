//! The endpoint itself (SPIFFE Workload Endpoint): the security header, methods that are not there, reflection.

use super::{
    client::{
        Answers, Connection, Ended, INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED, UNIMPLEMENTED,
    },
    findings::Findings,
    jwt::{AUDIENCE, refused},
    messages::{JwtSvidRequest, Nothing, ReflectionRequest, ReflectionResponse, ValidateJwtSvidRequest},
};
use prost::Message;
use prost_types::FileDescriptorProto;
use std::collections::BTreeSet;

/// Asks every method without the security header, and with others than the right one.
pub(super) async fn examine_header(findings: &mut Findings, connection: &Connection) {
    for method in METHODS {
        let ended = ask(connection, method, None).await;
        findings.holds("WLEP-3-2", ended.is_err(), format!("{method} answers without it"));
        let outcome = refused(ended, INVALID_ARGUMENT).map_err(|why| format!("{method}: {why}"));
        findings.check("WLEP-6-1", outcome);
    }
    for value in ["True", "TRUE", "false", "1", ""] {
        let ended = ask(connection, "FetchX509SVID", Some(value)).await;
        findings.holds("WLEP-3-3", ended.is_err(), format!("the value {value:?} is taken"));
    }
}

/// Asks every method as it should be asked: none is unknown, and none wants to know who asks.
pub(super) async fn examine_profiles(findings: &mut Findings, connection: &Connection) {
    findings.check("WLEP-3.1-1", Ok(()));
    for method in METHODS {
        let code = ask(connection, method, Some("true")).await.err().and_then(|ended| ended.code());
        findings.holds("WLAPI-1-1", code != Some(UNIMPLEMENTED), format!("{method} is not implemented"));
        findings.holds("WLEP-5-1", code != Some(UNAUTHENTICATED), format!("{method} wants authentication"));
    }
    let unknown = ask(connection, "FetchNothing", Some("true")).await;
    findings.check("WLEP-A-1", refused(unknown, UNIMPLEMENTED));
    for method in ["FetchWITSVID", "FetchWITBundles"] {
        match ask(connection, method, Some("true")).await {
            Err(ended) if ended.code() == Some(UNIMPLEMENTED) => findings.check("WLAPI-7-1", Ok(())),
            Ok(()) => findings.passed_over("WLAPI-7-1", "the WIT-SVID profile is there"),
            Err(ended) => findings.check("WLAPI-7-1", Err(format!("{method}: {ended}"))),
        }
    }
}

/// Asks every method that gives something, for a caller that is entitled to nothing.
pub(super) async fn examine_unentitled(findings: &mut Findings, connection: &Connection) {
    for method in METHODS.into_iter().filter(|method| *method != "ValidateJWTSVID") {
        let ended = ask(connection, method, Some("true")).await;
        let outcome = refused(ended, PERMISSION_DENIED).map_err(|why| format!("{method}: {why}"));
        findings.check("WLAPI-5.2.1-9", outcome);
    }
}

/// Asks what is there by reflection, and looks for methods that no specification knows.
pub(super) async fn examine_reflection(findings: &mut Findings, connection: &Connection) {
    let services = match reflect(connection, list_services()).await {
        Ok(answer) => answer.list_services_response.unwrap_or_default().service,
        Err(ended) => {
            findings.check("WLEP-7-1", Err(ended.to_string()));
            return findings.passed_over("WLAPI-2-1", "without reflection it cannot be seen");
        }
    };
    let there = services.iter().any(|service| service.name == SERVICE);
    findings.holds("WLEP-7-1", there, "it does not name the Workload API");
    let question =
        ReflectionRequest { file_containing_symbol: Some(SERVICE.to_owned()), list_services: None };
    let Ok(answer) = reflect(connection, question).await else {
        return findings.check("WLEP-7-1", Err("it does not describe the Workload API".to_owned()));
    };
    let files = answer.file_descriptor_response.unwrap_or_default().file_descriptor_proto;
    let files = files.iter().filter_map(|file| FileDescriptorProto::decode(file.as_slice()).ok());
    let services = files.flat_map(|file| file.service).filter(|service| service.name() == SERVICE);
    let methods: BTreeSet<_> =
        services.flat_map(|service| service.method).map(|method| method.name().to_owned()).collect();
    let known = |method: &str| METHODS.contains(&method) || OPTIONAL.contains(&method);
    let more: Vec<_> = methods.iter().filter(|method| !known(method)).collect();
    findings.holds("WLAPI-2-1", !methods.is_empty() && more.is_empty(), format!("methods besides: {more:?}"));
}

fn list_services() -> ReflectionRequest {
    ReflectionRequest { file_containing_symbol: None, list_services: Some(String::new()) }
}

async fn reflect(connection: &Connection, question: ReflectionRequest) -> Result<ReflectionResponse, Ended> {
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    // An attacker that cannot set metadata is to get nothing here either; clients of reflection may set none.
    let mut answers: Answers<ReflectionResponse> = connection.ask_at(path, Some("true"), &question).await?;
    answers.next().await?.ok_or_else(|| Ended::Broken("ended without a message".to_owned()))
}

/// Asks a method for its first message and takes no interest in what that says.
async fn ask(connection: &Connection, method: &str, header: Option<&str>) -> Result<(), Ended> {
    let audience = AUDIENCE.to_owned();
    let mut answers: Answers<Nothing> = match method {
        "FetchJWTSVID" => {
            let question = JwtSvidRequest { audience: vec![audience], spiffe_id: String::new() };
            connection.ask(method, header, &question).await?
        }
        "ValidateJWTSVID" => {
            let question = ValidateJwtSvidRequest { audience, svid: "not.a.token".to_owned() };
            connection.ask(method, header, &question).await?
        }
        _ => connection.ask(method, header, &Nothing {}).await?,
    };
    answers.next().await.map(drop)
}

const SERVICE: &str = "SpiffeWorkloadAPI";
const METHODS: [&str; 5] =
    ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"];
const OPTIONAL: [&str; 2] = ["FetchWITSVID", "FetchWITBundles"];
