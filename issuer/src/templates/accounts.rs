//! The accounts in which roles may be used at all: the operator's own word, beside what templates say.

use std::collections::BTreeSet;

use super::{TemplateError, Templates, error};

/// The AWS accounts whose roles may be used. Without one, none is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsAccounts(BTreeSet<String>);

/// A text that is no account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no AWS account: it has 12 digits, quoted in YAML")]
pub struct NoAccount(pub String);

impl AwsAccounts {
    /// These and no others.
    ///
    /// # Errors
    /// [`NoAccount`]: the first that is none.
    pub fn new(accounts: impl IntoIterator<Item = String>) -> Result<Self, NoAccount> {
        let checked = accounts.into_iter().map(|account| {
            let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
            if is_account { Ok(account) } else { Err(NoAccount(account)) }
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    /// Whether roles of this account may be used.
    pub fn allow(&self, account: &str) -> bool {
        self.0.contains(account)
    }
}

impl Templates {
    /// Whether every template is for an account whose roles may be used.
    ///
    /// # Errors
    /// Every template that is not.
    pub fn check_accounts(&self, accounts: &AwsAccounts) -> Result<(), Vec<TemplateError>> {
        let foreign = self.iter().filter(|template| !accounts.allow(&template.file.aws.account));
        let problem = "its roles may not be used: add it to `aws.accounts`, if it is one of yours";
        let errors: Vec<_> =
            foreign.map(|template| error(&template.file.name, "aws.account", problem)).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_twelve_digits() {
        let accounts = AwsAccounts::new(["111122223333".to_owned()]).unwrap();
        assert!(accounts.allow("111122223333"));
        assert!(!accounts.allow("111122223334") && !AwsAccounts::default().allow("111122223333"));
        for bad in
            ["", "11112222333", "1111222233334", "11112222333x", "１１１１２２２２３３３３", " 11112222333"]
        {
            assert_eq!(AwsAccounts::new([bad.to_owned()]), Err(NoAccount(bad.to_owned())), "{bad:?}");
        }
    }
}
