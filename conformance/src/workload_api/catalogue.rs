//! What is required of a server, as far as a client can see it: each requirement with its specification and section.

/// One requirement.
pub struct Requirement {
    /// Its name here: the specification, the section, a number.
    pub id: &'static str,
    /// How binding it is.
    pub level: Level,
    /// What is required, in words of our own.
    pub text: &'static str,
}

/// How binding a requirement is (RFC 2119).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// MUST, MUST NOT, and what a specification defines.
    Must,
    /// SHOULD, SHOULD NOT.
    Should,
}

impl Requirement {
    /// The full name of the specification.
    pub fn specification(&self) -> &'static str {
        let prefix = self.id.split('-').next().unwrap_or_default();
        let named = SPECIFICATIONS.iter().find(|(short, _)| *short == prefix);
        named.map_or("", |(_, name)| name)
    }

    /// The section.
    pub fn section(&self) -> &'static str {
        self.id.split('-').nth(1).unwrap_or_default()
    }
}

impl Level {
    /// Its key word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
        }
    }
}

const fn must(id: &'static str, text: &'static str) -> Requirement {
    Requirement { id, level: Level::Must, text }
}

const fn should(id: &'static str, text: &'static str) -> Requirement {
    Requirement { id, level: Level::Should, text }
}

const SPECIFICATIONS: [(&str, &str); 6] = [
    ("WLEP", "SPIFFE Workload Endpoint"),
    ("WLAPI", "SPIFFE Workload API"),
    ("X509SVID", "X509-SVID"),
    ("JWTSVID", "JWT-SVID"),
    ("SPIFFEID", "SPIFFE-ID"),
    ("BUNDLE", "SPIFFE Trust Domain and Bundle"),
];

/// All of them.
pub const REQUIREMENTS: &[Requirement] = &[
    must("WLEP-3-1", "the endpoint speaks gRPC"),
    must("WLEP-3-2", "a request without the security header is rejected, whichever method it is for"),
    must(
        "WLEP-3-3",
        "the header's value is `true`, to the letter: another value, or another case, is rejected",
    ),
    must("WLEP-3.1-1", "TLS is not demanded of who connects"),
    must("WLEP-5-1", "no client has to authenticate itself"),
    must("WLEP-6-1", "the status for a missing security header is InvalidArgument"),
    should("WLEP-7-1", "gRPC server reflection is there, and names the Workload API"),
    must("WLEP-A-1", "a method that is not implemented gets Unimplemented"),
    must("WLAPI-1-1", "the X.509-SVID and the JWT-SVID profile are both there"),
    must("WLAPI-2-1", "the service has no methods beyond the specification's"),
    must("WLAPI-4.3-1", "the first message of a stream comes without delay"),
    must(
        "WLAPI-4.3-2",
        "each message is the full state: whoever connects a second time is told all of it again",
    ),
    should("WLAPI-4.3-3", "a message is sent when something has changed, and not again for the same state"),
    should("WLAPI-4.5-1", "a mandatory field that is empty gets InvalidArgument"),
    must("WLAPI-5.2.1-1", "FetchX509SVID gives one SVID at least"),
    must("WLAPI-5.2.1-2", "of an X509SVID all fields but the hint are set"),
    must("WLAPI-5.2.1-3", "no two SVIDs of an answer have the same hint"),
    must("WLAPI-5.2.1-4", "the chain is DER, one certificate after the other, the leaf first"),
    must("WLAPI-5.2.1-5", "the SPIFFE ID beside the SVID is the one inside"),
    must("WLAPI-5.2.1-6", "the key is unencrypted PKCS#8, and the leaf's"),
    must(
        "WLAPI-5.2.1-7",
        "bundles are DER certificates, foreign ones under the SPIFFE ID of their trust domain, never under ours",
    ),
    must("WLAPI-5.2.1-8", "revocation lists are DER"),
    should("WLAPI-5.2.1-9", "who has no identity gets PermissionDenied, of every method that gives some"),
    must("WLAPI-5.2.2-1", "FetchX509Bundles gives the bundle of the server's own trust domain"),
    must("WLAPI-5.2.2-2", "it says of that trust domain what FetchX509SVID says"),
    must("WLAPI-6.2.1-1", "the audience that was asked for is in the token, and nothing else"),
    must("WLAPI-6.2.1-2", "without a SPIFFE ID in the request there is a JWT-SVID for every identity"),
    must("WLAPI-6.2.1-3", "with one there is a JWT-SVID for that identity alone"),
    should("WLAPI-6.2.1-4", "a SPIFFE ID that the caller has no right to gets PermissionDenied"),
    must(
        "WLAPI-6.2.1-5",
        "there is one JWT-SVID at least; its fields but the hint are set, hints are not repeated",
    ),
    must("WLAPI-6.2.2-1", "FetchJWTBundles gives a JWK Set of the server's own trust domain"),
    must("WLAPI-6.2.2-2", "a JWT bundle has no keys for other uses"),
    must("WLAPI-6.2.3-1", "a JWT-SVID that was just given is valid for its audience"),
    must("WLAPI-6.2.3-2", "a JWT-SVID is not valid for another audience"),
    must("WLAPI-6.2.3-3", "a token with another content, another signature, or none, is not valid"),
    must(
        "WLAPI-6.2.3-4",
        "the answer to a valid one has its SPIFFE ID, and the claims `sub`, `aud` and `exp`",
    ),
    must("WLAPI-7-1", "methods of the WIT-SVID profile, where it is not there, get Unimplemented"),
    must("X509SVID-2-1", "a leaf has exactly one URI among its names"),
    must("X509SVID-3.1-1", "a leaf's SPIFFE ID has a path"),
    must("X509SVID-3.1-2", "a leaf without a subject has its alternative names marked critical"),
    should("X509SVID-3.2-1", "a signing certificate is an SVID itself"),
    must("X509SVID-3.2-2", "a signing certificate's SPIFFE ID has no path"),
    should("X509SVID-3.2-3", "a signing certificate is of the trust domain of the leaves"),
    must("X509SVID-4.1-1", "signing certificates, and they alone, are CAs by their basic constraints"),
    must("X509SVID-4.3-1", "key usage is set, and critical, on every certificate"),
    must("X509SVID-4.3-2", "a leaf's key signs data, and neither certificates nor revocation lists"),
    must("X509SVID-4.3-3", "a signing certificate's key signs certificates"),
    should("X509SVID-4.4-1", "a leaf has an extended key usage"),
    must("X509SVID-4.4-2", "where it has one, that allows both servers and clients"),
    must(
        "X509SVID-5.1-1",
        "a leaf's path leads to an authority in the bundle beside it, as RFC 5280 validates paths",
    ),
    must("JWTSVID-2-1", "the header has nothing but `alg`, `kid` and `typ`"),
    must("JWTSVID-2.1-1", "`alg` is one of the nine that are allowed"),
    must("JWTSVID-2.3-1", "`typ`, where there is one, is JWT or JOSE"),
    must("JWTSVID-3.1-1", "`sub` is the SPIFFE ID"),
    must("JWTSVID-3.2-1", "`aud` is there, and not empty"),
    must("JWTSVID-3.3-1", "`exp` is there, and to come"),
    must("JWTSVID-4-1", "the signature is one of a key in the JWT bundle of the SVID's own trust domain"),
    must("JWTSVID-5.1-1", "it is in the compact serialization"),
    must("SPIFFEID-2-1", "a SPIFFE ID has the scheme spiffe, a trust domain, and neither query nor fragment"),
    must(
        "SPIFFEID-2.1-1",
        "a trust domain is lower-case letters, digits, dots, dashes and underscores, without user or port",
    ),
    must(
        "SPIFFEID-2.2-1",
        "a path has no empty or relative segments, no slash at its end, and only letters, digits, dots, dashes and underscores",
    ),
    should("SPIFFEID-2.3-1", "a SPIFFE ID has 2048 bytes at most"),
    must("BUNDLE-4.1.3-1", "a bundle has its keys in `keys`"),
    must("BUNDLE-4.2.1-1", "each key says its type"),
    must("BUNDLE-2-1", "a bundle holds no private keys"),
];
