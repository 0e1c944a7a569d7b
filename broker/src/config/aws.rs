//! AWS: whose roles, by which identity, asked where. Everything stands here or in the files that it names.

use deputize_call::sign::SigningAlgorithm;
use deputize_issuer::{
    registry::Registry,
    templates::{AwsAccounts, TemplateError, Templates},
};
use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};
use url::Url;

use super::{
    aws_issuer::{Taker, check_issuer},
    private_file::is_private,
    raw,
    read::ConfigError,
    resolved::Check,
    templates::load_templates,
};

/// AWS, as it is configured.
#[derive(Debug, Clone)]
pub struct Aws {
    /// The identity that AWS knows the broker by.
    pub web_identity: WebIdentityIssuer,
    /// How STS is asked.
    pub sts: Sts,
    /// The accounts whose roles may be used.
    pub accounts: AwsAccounts,
    /// Folder of role templates.
    pub templates: PathBuf,
}

/// The identity that AWS knows the broker by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebIdentityIssuer {
    /// Issuer URL, without a trailing slash.
    pub issuer: String,
    /// `aud` of its tokens.
    pub audience: String,
    /// What its tokens are signed with.
    pub algorithm: SigningAlgorithm,
}

/// How STS is asked.
#[derive(Debug, Clone)]
pub struct Sts {
    /// Another endpoint than AWS's own, with `{region}` for the region.
    pub endpoint: Option<String>,
    /// PEM file of a private certification authority.
    pub ca_file: Option<PathBuf>,
    /// Whether its address may be private.
    pub allow_private_addresses: bool,
    /// Calls a second for roles of one account.
    pub calls_per_second: NonZeroU32,
    /// Keys of a user, instead of the web identity.
    pub keys: Option<Keys>,
}

/// Keys of a user who may assume the roles.
#[derive(Debug, Clone)]
pub struct Keys {
    /// `AccessKeyId`.
    pub access_key_id: String,
    /// File with the secret access key.
    pub secret_access_key_file: PathBuf,
    /// File with the session token.
    pub session_token_file: Option<PathBuf>,
}

impl Aws {
    /// Reads and checks the templates: each by itself, its account, and whether it goes with the registry.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load_templates(&self, registry: &Registry) -> Result<Templates, Vec<ConfigError>> {
        let in_folder = |errors: Vec<TemplateError>| -> Vec<ConfigError> {
            errors.iter().map(|error| ConfigError::new(&self.templates, error.to_string())).collect()
        };
        let templates = load_templates(&self.templates)?;
        let foreign = templates.check_accounts(&self.accounts).err().unwrap_or_default();
        let errors: Vec<_> = foreign.into_iter().chain(templates.misfits(registry)).collect();
        if errors.is_empty() { Ok(templates) } else { Err(in_folder(errors)) }
    }
}

impl Check<'_> {
    /// What the file says of AWS.
    pub(super) fn aws(&mut self, raw: &raw::Aws, issuer: &str) -> Aws {
        if raw.accounts.is_empty() {
            self.refuse(
                "aws.accounts: list the accounts whose roles may be used; those of no other ever are",
            );
        }
        let accounts = AwsAccounts::new(raw.accounts.iter().cloned());
        let accounts = accounts.map_err(|error| self.refuse(format!("aws.accounts: {error}")));
        Aws {
            web_identity: self.web_identity(raw, issuer),
            sts: self.sts(&raw.sts, raw.assume_role.as_ref()),
            accounts: accounts.unwrap_or_default(),
            templates: self.folder.join(&raw.templates),
        }
    }

    fn web_identity(&mut self, aws: &raw::Aws, issuer: &str) -> WebIdentityIssuer {
        let raw = &aws.web_identity;
        let own = format!("{issuer}/web-identity");
        let identity = raw.issuer.clone().unwrap_or(own);
        // AWS itself is asked, and by what it knows of that issuer.
        let is_for_aws = aws.sts.endpoint.is_none() && aws.assume_role.is_none();
        let taker = if is_for_aws { Taker::Aws } else { Taker::StandIn };
        if let Err(problem) = check_issuer(&identity, taker)
            && !self.is_development()
        {
            self.refuse(format!(
                "aws.web_identity.issuer: {identity:?} {problem}; where the broker's own URL is no issuer for AWS, \
                 `deputize keys publish` makes the files for another"
            ));
        }
        if super::resolved::same_place(&identity, issuer)
            || super::resolved::same_place(&identity, &format!("{issuer}/spiffe"))
        {
            self.refuse(
                "aws.web_identity.issuer: tool-call tokens and SVIDs have that issuer, and AWS must not take them for \
                 web identities: give it a URL of its own",
            );
        }
        let audience = raw.audience();
        if audience.is_empty() || audience.len() > 255 {
            self.refuse("aws.web_identity.audience: 1 to 255 characters, as the provider in IAM has it");
        }
        let algorithm = match raw.algorithm {
            raw::WebIdentityAlgorithm::ES256 => SigningAlgorithm::ES256,
            raw::WebIdentityAlgorithm::RS256 => SigningAlgorithm::RS256,
        };
        WebIdentityIssuer { issuer: identity, audience, algorithm }
    }

    fn sts(&mut self, raw: &raw::Sts, user: Option<&raw::AssumeRole>) -> Sts {
        if let Some(endpoint) = &raw.endpoint {
            let one = endpoint.replace("{region}", "eu-central-1");
            self.https("aws.sts.endpoint", &one);
            let is_plain = Url::parse(&one).is_ok_and(|url| {
                url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
                    && url.fragment().is_none()
            });
            if one.contains(['{', '}']) || !is_plain {
                self.refuse(format!(
                    "aws.sts.endpoint: {endpoint:?}: a URL without user, query and fragment; {{region}} is the only \
                     placeholder"
                ));
            }
        }
        Sts {
            endpoint: raw.endpoint.clone(),
            ca_file: raw.ca_file.as_ref().map(|file| self.folder.join(file)),
            allow_private_addresses: raw.allow_private_addresses || self.is_development(),
            calls_per_second: raw.calls_per_second,
            keys: user.map(|user| self.user_keys(user)),
        }
    }

    fn user_keys(&mut self, raw: &raw::AssumeRole) -> Keys {
        let id = &raw.access_key_id;
        if !(1..=128).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.refuse("aws.assume_role.access_key_id: letters and digits alone, 128 at most");
        }
        if id.starts_with("ASIA") && raw.session_token_file.is_none() {
            self.refuse(
                "aws.assume_role.session_token_file: keys whose id begins with ASIA are those of a session, and worth \
                 nothing without its token",
            );
        }
        let keys = Keys {
            access_key_id: id.clone(),
            secret_access_key_file: self.folder.join(&raw.secret_access_key_file),
            session_token_file: raw.session_token_file.as_ref().map(|file| self.folder.join(file)),
        };
        for file in keys.session_token_file.iter().chain([&keys.secret_access_key_file]) {
            self.private(file);
        }
        keys
    }

    /// A file whose content nobody else may know.
    pub(super) fn private(&mut self, file: &Path) {
        let problem = match std::fs::metadata(file) {
            Err(error) => error.to_string(),
            Ok(metadata) if !is_private(&metadata) => {
                "others may read it: chmod 600, and make new keys if they did".to_owned()
            }
            Ok(_) => return,
        };
        self.errors.push(ConfigError::new(file, problem));
    }
}
