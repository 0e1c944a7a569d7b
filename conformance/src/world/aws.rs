//! What a world needs for AWS: role templates, an STS, and clients to whom answers are sealed.

use super::World;
use crate::forge::Key;
use serde_json::{Value, json};

pub(super) struct Aws {
    sts: String,
}

impl Aws {
    pub(super) fn configuration(&self) -> Value {
        json!({
            "templates": "templates", "accounts": ["111122223333"],
            "sts": { "endpoint": self.sts, "ca_file": "ca.pem", "allow_private_addresses": true },
        })
    }
}

impl World {
    /// Gives the broker AWS: this STS, and these role templates of the account 111122223333, before the start.
    pub fn templates_for_aws(&mut self, sts: &str, templates: Vec<Value>) {
        self.aws = Some(Aws { sts: sts.to_owned() });
        templates.iter().for_each(|template| self.write_template(template));
    }

    /// Puts one more public JWK into a client's key set, before the start.
    pub fn add_client_key(&mut self, client: &'static str, jwk: Value) {
        self.more_client_keys.push((client, jwk));
    }

    /// Writes a role template, perhaps over the one of its name.
    pub fn write_template(&self, template: &Value) {
        let folder = self.folder().join("templates");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{}.json", template["name"].as_str().unwrap()));
        std::fs::write(file, template.to_string()).unwrap();
    }

    pub(super) fn write_key_set(&self, client: &str, key: &Key) {
        let more = self.more_client_keys.iter().filter(|(of, _)| *of == client).map(|(_, jwk)| jwk.clone());
        let keys: Vec<_> = [key.jwk()].into_iter().chain(more).collect();
        let jwks = json!({ "keys": keys });
        std::fs::write(self.folder().join(format!("clients/{client}.json")), jwks.to_string()).unwrap();
    }
}
