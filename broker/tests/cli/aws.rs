//! The configuration's `aws`: what `deputize lint` says of it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

use crate::program::{Ran, run};

/// The example's configuration with AWS, and the example's template for a tool that its server has.
struct Setup {
    folder: TempDir,
    aws: String,
    template: String,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let template = std::fs::read_to_string(example().join("templates/query-orders.yaml")).unwrap();
        Self {
            folder,
            aws: "aws:\n  templates: templates\n  accounts: [\"111122223333\"]\n".to_owned(),
            template: template.replace("tool: list_orders", "tool: lookup_customer"),
        }
    }

    /// With something else in the template.
    fn template(mut self, from: &str, to: &str) -> Self {
        assert!(self.template.contains(from), "{from}");
        self.template = self.template.replacen(from, to, 1);
        self
    }

    fn aws(mut self, text: &str) -> Self {
        self.aws.push_str(text);
        self
    }

    fn file(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, "secret\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn lint(&self) -> Ran {
        let folder = self.folder.path();
        std::fs::create_dir_all(folder.join("templates")).unwrap();
        std::fs::write(folder.join("templates/one.yaml"), &self.template).unwrap();
        let mut text = std::fs::read_to_string(example().join("deputize.yaml")).unwrap();
        for name in ["clients/support-platform", "clients/crm-guard", "approvers/platform"] {
            text = text.replace(name, &format!("{}/{name}", example().display()));
        }
        text = text.replace("folder: registry", &format!("folder: {}/registry", example().display()));
        text = text.replace("entries: entries", &format!("entries: {}/entries", example().display()));
        text = text.replace("../../broker", &format!("{}/../../broker", example().display()));
        let config = folder.join("deputize.yaml");
        std::fs::write(&config, text + "\n" + &self.aws).unwrap();
        run(&["lint", "--config", config.to_str().unwrap()])
    }

    #[track_caller]
    fn says(&self, code: i32, parts: &[&str]) {
        let ran = self.lint().expect(code);
        for part in parts {
            assert!(ran.stdout.contains(part), "{part}: {ran:?}");
        }
    }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/example").canonicalize().unwrap()
}

#[test]
fn a_template_for_a_tool_that_is_there_is_taken() {
    Setup::new().says(0, &["✔ nothing is wrong", "role templates", "1"]);
    let whole = "  web_identity: { issuer: \"https://keys.example.com/aws\", audience: broker, algorithm: RS256 }\n  \
                 sts: { endpoint: \"https://vpce-1.sts.{region}.vpce.amazonaws.com\", allow_private_addresses: true, calls_per_second: 5 }\n";
    Setup::new().aws(whole).says(0, &["✔ nothing is wrong"]);
    let stand_in = "  web_identity: { issuer: \"https://keys.example.com:8443\" }\n  \
                    sts: { endpoint: \"https://sts.example.com:8443\", allow_private_addresses: true }\n";
    Setup::new().aws(stand_in).says(0, &["✔ nothing is wrong"]);
}

#[test]
fn a_template_that_no_call_can_have_is_a_problem() {
    for (from, to, parts) in [
        (
            "tool: lookup_customer",
            "tool: lookup_customers",
            &["match.tool", "did you mean `lookup_customer`?"],
        ),
        ("tenant: acme", "tenant: globex", &["match.tenant", "\"acme\""]),
        ("/customer_id", "/customer", &["params.partition", "no such argument"]),
        ("/customer_id", "/customer_id/number", &["params.partition", "no such argument"]),
        (
            "type: dynamodb_partition\n    max_length: 40",
            "type: integer\n    minimum: 1\n    maximum: 9",
            &["params.partition", "another type"],
        ),
        ("ceiling:", "residency: { regions: [eu-central-1] }\nceiling:", &["residency", "names no region"]),
    ] {
        Setup::new().template(from, to).says(5, parts);
    }
    // Of a server that is not registered nothing is known; it may come, or may just have been taken away.
    let gone = Setup::new().template("https://crm.example.com/mcp", "https://gone.example.com/mcp");
    gone.says(0, &["match.server", "not in the registry", "nobody can ask"]);
    let asking = Setup::new().template("ceiling:", "approval: confirm\nceiling:");
    asking.says(0, &["approvals are not there yet"]);
}

#[test]
fn only_listed_accounts_are_used() {
    Setup::new().template("111122223333", "444455556666").says(5, &["template \"query-orders\""]);
    let every =
        Setup { template: Setup::new().template.replace("111122223333", "444455556666"), ..Setup::new() };
    every.says(5, &["aws.account", "aws.accounts"]);
    for account in ["11112222333", "1111222233334", "11112222333a", ""] {
        let setup = Setup {
            aws: format!("aws:\n  templates: templates\n  accounts: [\"{account}\"]\n"),
            ..Setup::new()
        };
        setup.says(5, &["aws.accounts", "12 digits"]);
    }
    let none = Setup { aws: "aws:\n  templates: templates\n  accounts: []\n".to_owned(), ..Setup::new() };
    none.says(5, &["aws.accounts: list"]);
}

#[test]
fn what_is_wrong_with_aws_is_named_with_what_to_do() {
    for (text, parts) in [
        ("  account: x\n", &["did you mean `accounts`?"][..]),
        ("  sts: { endpont: x }\n", &["did you mean `endpoint`?"]),
        ("  sts: { calls_per_second: 0 }\n", &["calls_per_second"]),
        ("  sts: { endpoint: \"http://sts.example.com\" }\n", &["aws.sts.endpoint", "https://"]),
        ("  sts: { endpoint: \"https://{account}.example.com\" }\n", &["aws.sts.endpoint", "placeholder"]),
        ("  sts: { endpoint: \"https://a:b@sts.example.com\" }\n", &["aws.sts.endpoint", "without user"]),
        ("  web_identity: { issuer: \"https://keys.example.com/\" }\n", &["trailing slash"]),
        ("  web_identity: { issuer: \"http://keys.example.com\" }\n", &["https://"]),
        ("  web_identity: { issuer: \"https://keys.example.com/?a\" }\n", &["plain"]),
        ("  web_identity: { issuer: \"https://keys.example.com:8443\" }\n", &["port", "keys publish"]),
        ("  web_identity: { issuer: \"https://deputize.example.com\" }\n", &["a URL of its own"]),
        ("  web_identity: { issuer: \"https://deputize.example.com/spiffe\" }\n", &["a URL of its own"]),
        (
            "  web_identity: { issuer: \"https://login.example.com/realms/acme\" }\n",
            &["no identity providers"],
        ),
        ("  web_identity: { algorithm: HS256 }\n", &["ES256"]),
        ("  web_identity: { audience: \"\" }\n", &["audience"]),
        ("  assume_role: { access_key_id: AKIA1, secret_access_key_file: gone }\n", &["gone"]),
        (
            "  assume_role: { access_key_id: AKIA1, secret_access_key: x }\n",
            &["expected one of access_key_id, secret_access_key_file"],
        ),
    ] {
        Setup::new().aws(text).says(5, parts);
    }
    let templates = Setup {
        aws: "aws:\n  templates: nowhere\n  accounts: [\"111122223333\"]\n".to_owned(),
        ..Setup::new()
    };
    templates.says(5, &["nowhere"]);
}

#[test]
fn keys_of_a_user_are_its_owners_alone() {
    let with = |id: &str| {
        Setup::new()
            .aws(&format!("  assume_role: {{ access_key_id: {id}, secret_access_key_file: secret }}\n"))
    };
    let setup = with("AKIAIOSFODNN7EXAMPLE");
    setup.file("secret", 0o600);
    setup.says(0, &["✔ nothing is wrong"]);
    setup.file("secret", 0o640);
    setup.says(5, &["chmod 600"]);
    let of_a_session = with("ASIAIOSFODNN7EXAMPLE");
    of_a_session.file("secret", 0o600);
    of_a_session.says(5, &["session_token_file"]);
}

#[test]
fn keys_for_sealing_are_used_or_refused() {
    let setup = Setup::new();
    let signing = std::fs::read_to_string(example().join("clients/crm-guard.jwks.json")).unwrap();
    let jwks: serde_json::Value = serde_json::from_str(&signing).unwrap();
    let mut sealing = jwks["keys"][0].clone();
    sealing.as_object_mut().unwrap().remove("alg");
    sealing["use"] = "enc".into();
    let with = |sealing: &serde_json::Value| {
        let keys = serde_json::json!({"keys": [jwks["keys"][0], sealing]});
        std::fs::write(setup.folder.path().join("guard.jwks.json"), keys.to_string()).unwrap();
        setup.lint();
        let path = setup.folder.path().join("deputize.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let guard = format!("{}/clients/crm-guard.jwks.json", example().display());
        std::fs::write(&path, text.replace(&guard, "guard.jwks.json")).unwrap();
        run(&["lint", "--config", path.to_str().unwrap()])
    };
    with(&sealing).expect(0);
    sealing["alg"] = "ECDH-ES".into();
    let refused = with(&sealing).expect(5);
    assert!(refused.stdout.contains("key with use \"enc\""), "{refused:?}");
}
