use super::settings::{Raw, Settings};
use crate::commands::exit::Exit;
use clap::Parser;
use deputize_call::{
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_guard::proxy::UpstreamKind;
use std::{os::unix::fs::PermissionsExt as _, path::Path};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    guard: super::Args,
}

/// Settings from this command line, with key files in `folder`.
fn settings(folder: &Path, line: &[&str]) -> Result<Settings, (Exit, String)> {
    let key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let (key_file, jwks) = (folder.join("key.jwk.json"), folder.join("snapshot.jwks.json"));
    std::fs::write(&key_file, key.to_private_jwk().unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&jwks, KeySet::new(vec![key.public().clone()]).to_jwks().to_string()).unwrap();
    let (key_file, jwks) = (key_file.to_str().unwrap(), jwks.to_str().unwrap());
    let fixed = ["guard", "--key-file", key_file, "--snapshot-keys", jwks, "--state-dir", "state"];
    let line =
        Line::try_parse_from(fixed.iter().chain(line)).map_err(|error| (Exit::Usage, error.to_string()))?;
    let error = |error: crate::commands::exit::CommandError| (error.exit, format!("{error}; {}", error.next));
    Settings::resolve(Raw::of(line.guard).map_err(error)?).map_err(error)
}

const BROKER: [&str; 4] = ["--issuer", "https://deputize.example.com", "--client-id", "crm-guard"];
const PUBLIC: [&str; 2] = ["--public-url", "https://crm.example.com/mcp"];

#[test]
fn a_command_line_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let line = [&BROKER[..], &PUBLIC, &["--upstream", "http://127.0.0.1:3001/mcp"]].concat();
    let settings = settings(folder.path(), &line).unwrap();
    let guard = &settings.proxy.guard;
    assert_eq!(guard.resource, "https://crm.example.com/mcp");
    assert_eq!(guard.resource_metadata, "https://crm.example.com/.well-known/oauth-protected-resource/mcp");
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert!(matches!(&settings.proxy.upstream, UpstreamKind::Http(http) if http.secret.is_none()));
}

#[test]
fn a_file_says_the_same_and_the_command_line_goes_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    let file = folder.path().join("guard.yaml");
    let text = format!(
        "upstream: http://127.0.0.1:3001/mcp\npublic_url: https://crm.example.com/mcp\nresource: https://crm.example.com/\n\
         issuer: https://deputize.example.com\nclient_id: crm-guard\nlisten: 127.0.0.1:9000\n\
         upstream_secret_file: {}\nlimits: {{ calls_per_minute: 7, body_kib: 2 }}\n",
        secret.display()
    );
    std::fs::write(&file, &text).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let read = settings(folder.path(), &config).unwrap();
    assert_eq!(read.proxy.guard.resource, "https://crm.example.com/");
    assert_eq!((read.proxy.limits.calls_per_minute, read.proxy.guard.max_body_bytes), (7, 2048));
    let UpstreamKind::Http(http) = &read.proxy.upstream else { panic!("not http") };
    let (header, value) = http.secret.as_ref().unwrap();
    assert_eq!((header.as_str(), value.as_str()), ("deputize-guard", "0123456789abcdef"));

    let above =
        settings(folder.path(), &[&config[..], &["--listen", "[::1]:1", "--", "server", "-v"]].concat())
            .unwrap();
    assert_eq!(above.listen.to_string(), "[::1]:1");
    let UpstreamKind::Stdio(stdio) = &above.proxy.upstream else { panic!("not stdio") };
    assert_eq!(
        (stdio.program.path.to_str(), stdio.program.arguments.as_slice()),
        (Some("server"), &["-v".to_owned()][..])
    );

    std::fs::write(&file, text.replace("public_url", "publik_url")).unwrap();
    let (exit, message) = settings(folder.path(), &config).err().unwrap();
    assert!(exit == Exit::Configuration && message.contains("did you mean `public_url`?"), "{message}");
}

#[test]
fn whose_own_tokens_are_taken_is_said_on_the_line_or_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let base = [&BROKER[..], &PUBLIC, &["--upstream", "http://127.0.0.1:3001/mcp"]].concat();
    let accepted = |more: &[&str]| settings(folder.path(), &[&base[..], more].concat());
    assert!(accepted(&[]).unwrap().proxy.guard.accept_issuers.is_empty(), "none unless it is said");
    let one = ["--accept-issuer", "https://id.example.com/realms/acme"];
    let both = [&one[..], &["--accept-issuer", "https://id.example.org/", "--accept-scope", "mcp"]].concat();
    let guard = accepted(&both).unwrap().proxy.guard;
    assert_eq!(guard.accept_issuers, ["https://id.example.com/realms/acme", "https://id.example.org/"]);
    assert_eq!(guard.accept_scopes, ["mcp"]);

    let file = folder.path().join("guard.yaml");
    std::fs::write(&file, "accept_issuers: [https://id.example.com]\naccept_scopes: [a, b]\n").unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let guard = accepted(&config).unwrap().proxy.guard;
    assert_eq!((guard.accept_issuers.len(), guard.accept_scopes.len()), (1, 2));
    let guard = accepted(&[&config[..], &one].concat()).unwrap().proxy.guard;
    assert_eq!(guard.accept_scopes, [""; 0], "the line goes before the file, as a whole");
    for (more, words) in [
        (&["--accept-issuer", "http://id.example.com"][..], "https"),
        (&["--accept-issuer", "https://deputize.example.com"], "identity provider"),
        (&[&one[..], &["--accept-scope", "a b"]].concat(), "without spaces"),
        (&["--accept-scope", "mcp"], "--accept-issuer"),
    ] {
        let (_, message) = accepted(more).err().unwrap_or_else(|| panic!("accepted: {more:?}"));
        assert!(message.contains(words), "{more:?}: {message}");
    }
}

#[test]
fn a_program_is_given_what_is_named_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let line = [&BROKER[..], &PUBLIC, &["--env", "TOKEN=t", "--env", "PATH", "--", "server"]].concat();
    let settings = settings(folder.path(), &line).unwrap();
    let UpstreamKind::Stdio(stdio) = &settings.proxy.upstream else { panic!("not stdio") };
    let value = |name: &str| {
        stdio.program.environment.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    };
    assert_eq!(value("TOKEN"), Some("t"));
    assert_eq!(value("PATH"), std::env::var("PATH").ok().as_deref());
    // What cargo sets for this test is not for the program.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && value("CARGO_MANIFEST_DIR").is_none());
}

#[test]
fn a_server_that_is_started_is_told_the_secret_that_the_guard_sends() {
    let folder = tempfile::tempdir().unwrap();
    let line =
        [&BROKER[..], &PUBLIC, &["--upstream", "http://127.0.0.1:3001/mcp", "--", "server", "-v"]].concat();
    let settings = settings(folder.path(), &line).unwrap();
    assert!(settings.server.ends_with("started as server -v"), "{}", settings.server);
    let UpstreamKind::Http(http) = settings.proxy.upstream else { panic!("not http") };
    assert!(http.secret.is_none(), "the guard makes one at each start of the program");
    let launched = http.program.unwrap();
    assert_eq!(launched.program.arguments.join(" "), "keep -- server -v");
    let names = (launched.secret_variable.as_str(), launched.secret_header.as_str());
    assert_eq!(names, ("DEPUTIZE_GUARD_SECRET", "deputize-guard"));
}

#[test]
fn aws_credentials_are_handed_over_where_it_is_said_and_nobody_else_could_take_them() {
    let folder = tempfile::tempdir().unwrap();
    let base = [&BROKER[..], &PUBLIC].concat();
    let hands_over = |more: &[&str]| {
        settings(folder.path(), &[&base[..], more].concat()).map(|settings| settings.proxy.hands_over_aws)
    };
    let local = ["--upstream", "http://127.0.0.1:3001/mcp"];
    assert!(!hands_over(&local).unwrap());
    assert!(hands_over(&[&local[..], &["--aws-credentials"]].concat()).unwrap());
    assert!(hands_over(&["--aws-credentials", "--", "server"]).unwrap());
    for upstream in ["http://10.0.0.1:3001/mcp", "https://ops.internal.example/mcp"] {
        let (exit, message) = hands_over(&["--upstream", upstream, "--aws-credentials"]).err().unwrap();
        assert!(exit == Exit::Configuration && message.contains("mutual TLS"), "{message}");
    }
    let file = folder.path().join("guard.yaml");
    std::fs::write(&file, "aws_credentials: true\n").unwrap();
    assert!(hands_over(&[&local[..], &["--config", file.to_str().unwrap()]].concat()).unwrap());
}

#[test]
fn whose_svids_are_asked_for_is_said_and_what_contradicts_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guard.yaml");
    let base = [&BROKER[..], &PUBLIC, &["--upstream", "http://127.0.0.1:3001/mcp"]].concat();
    let read = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        settings(folder.path(), &[&base[..], &["--config", file.to_str().unwrap()], more].concat())
    };
    let tls = "tls: { certificate_file: guard.pem, key_file: guard.key }\n";
    let api = format!("{tls}workload_api: /run/api.sock\n");
    let svids = |text: &str, more: &[&str]| read(text, more).unwrap().proxy.guard.caller_svids;
    assert!(svids(tls, &[]).is_none(), "nobody looks");
    assert!(!svids(&api, &[]).unwrap().svidless, "who acts shows who it is");
    assert!(svids(&api, &["--allow-svidless-callers"]).unwrap().svidless);
    assert!(svids(&format!("{api}allow_svidless_callers: true\n"), &[]).unwrap().svidless);
    let holds = |text: &str| match read(text, &[]).unwrap().trusted {
        Some(super::callers::Trusted::WorkloadApi { holds, .. }) => holds.as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!(holds(&api), 3600);
    assert_eq!(holds(&format!("{api}limits: {{ caller_bundles_seconds: 60 }}\n")), 60);
    for (text, words) in [
        (format!("{tls}allow_svidless_callers: true\n"), "it goes with workload_api or caller_bundles"),
        (
            format!("{api}allow_svidless_callers: true\nrequire_caller_svid: ['spiffe://*']\n"),
            "without require_caller_svid",
        ),
        (format!("{api}limits: {{ caller_bundles_seconds: 0 }}\n"), "1 to 86400"),
        (format!("{api}limits: {{ caller_bundles_seconds: 86401 }}\n"), "1 to 86400"),
        ("workload_api: /run/api.sock\n".to_owned(), "callers show their SVIDs in TLS"),
    ] {
        let (exit, message) = read(&text, &[]).err().unwrap_or_else(|| panic!("accepted: {text}"));
        assert!(exit == Exit::Configuration && message.contains(words), "{text}: {message}");
    }
    let both = ["--allow-svidless-callers", "--require-caller-svid"];
    assert_eq!(read(&api, &both).err().unwrap().0, Exit::Usage);
}

#[test]
fn what_cannot_be_is_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short");
    std::fs::write(&short, "secret").unwrap();
    let good = folder.path().join("good");
    std::fs::write(&good, "0123456789abcdef").unwrap();
    let good = good.to_str().unwrap();
    let upstream = ["--upstream", "http://127.0.0.1:1/mcp"];
    let local = ["--issuer", "http://127.0.0.1:7000", "--client-id", "crm-guard"];
    let elsewhere = ["--issuer", "http://deputize.example.com", "--client-id", "x", "--insecure-loopback"];
    for (line, exit, words) in [
        ([&BROKER[..], &PUBLIC].concat(), Exit::Usage, "--upstream URL"),
        ([&BROKER[..], &upstream].concat(), Exit::Configuration, "--public-url is missing"),
        ([&PUBLIC[..], &upstream].concat(), Exit::Configuration, "--issuer is missing"),
        ([&local[..], &PUBLIC, &upstream].concat(), Exit::Configuration, "--insecure-loopback"),
        ([&elsewhere[..], &PUBLIC, &upstream].concat(), Exit::Configuration, "must begin with https://"),
        (
            [&BROKER[..], &["--public-url", "http://crm.example.com/mcp"], &upstream].concat(),
            Exit::Configuration,
            "https",
        ),
        (
            [&BROKER[..], &["--public-url", "https://crm.example.com"], &upstream].concat(),
            Exit::Configuration,
            "a path",
        ),
        ([&BROKER[..], &PUBLIC, &["--upstream", "ftp://a/"]].concat(), Exit::Configuration, "http or https"),
        (
            [&BROKER[..], &PUBLIC, &["--upstream", "http://10.0.0.1:1/mcp", "--", "server"]].concat(),
            Exit::Configuration,
            "on loopback",
        ),
        (
            [&BROKER[..], &PUBLIC, &upstream, &["--upstream-secret-file", good, "--", "server"]].concat(),
            Exit::Configuration,
            "told a secret by the guard",
        ),
        (
            [&BROKER[..], &PUBLIC, &upstream, &["--upstream-secret-file", short.to_str().unwrap()]].concat(),
            Exit::Configuration,
            "openssl rand",
        ),
        (
            [&BROKER[..], &PUBLIC, &["--env", "NOT_SET_HERE", "--", "s"]].concat(),
            Exit::Configuration,
            "not set here",
        ),
    ] {
        let (got, message) =
            settings(folder.path(), &line).err().unwrap_or_else(|| panic!("accepted: {line:?}"));
        assert!(got == exit && message.contains(words), "{line:?}: {got:?} {message}");
    }
    assert!(
        settings(folder.path(), &[&local[..], &PUBLIC, &upstream, &["--insecure-loopback"]].concat()).is_ok()
    );
}
