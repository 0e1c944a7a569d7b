//! The three users of every development environment.

/// Someone who can sign in.
#[derive(Debug)]
pub struct User {
    /// What to give as `login_hint`; also the `sub`.
    pub name: &'static str,
    /// `name` claim.
    pub full_name: &'static str,
    /// `email` claim.
    pub email: &'static str,
    /// `groups` claim.
    pub groups: &'static [&'static str],
    /// `acr` claim: how strongly they authenticate.
    pub acr: &'static str,
    /// `amr` claim (RFC 8176 §2).
    pub amr: &'static [&'static str],
    /// What they are for.
    pub purpose: &'static str,
}

/// The user of this name.
pub(crate) fn find(name: &str) -> Option<&'static User> {
    USERS.iter().find(|user| user.name == name)
}

/// All users.
pub static USERS: [User; 3] = [
    User {
        name: "alice",
        full_name: "Alice Adams",
        email: "alice@corp.example",
        groups: &["support"],
        acr: "pwd",
        amr: &["pwd"],
        purpose: "works in support",
    },
    User {
        name: "bob",
        full_name: "Bob Brown",
        email: "bob@corp.example",
        groups: &["analyst"],
        acr: "pwd",
        amr: &["pwd"],
        purpose: "is an analyst",
    },
    User {
        name: "carol",
        full_name: "Carol Clark",
        email: "carol@corp.example",
        groups: &["approver", "admin"],
        acr: "mfa",
        amr: &["pwd", "otp", "mfa"],
        purpose: "approves what is risky",
    },
];
