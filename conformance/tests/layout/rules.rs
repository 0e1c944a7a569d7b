//! The rules, as data. Each has its reason, the places that are excepted (with theirs), and an example that breaks it.

/// Something that must not stand in some part of the tree.
pub(crate) struct Absence {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) seek: Seek,
    /// Path prefixes that the rule is about.
    pub(crate) within: &'static [&'static str],
    /// Path prefixes where it may stand, and why.
    pub(crate) except: &'static [(&'static str, &'static str)],
    /// Whether files of tests, benches and the black-box side are looked at too.
    pub(crate) tests_too: bool,
    /// A path and a text that break the rule.
    pub(crate) broken_by: (&'static str, &'static str),
}

/// What to look for.
pub(crate) enum Seek {
    /// Whole words or paths in Rust code, comments and literals aside.
    Code(&'static [&'static str]),
    /// Rust string literals with exactly this content.
    Literal(&'static [&'static str]),
    /// Any part of any text; each pattern is given in two halves, so that this file does not find itself.
    Text(&'static [(&'static str, &'static str)]),
}

const EVERYWHERE: &[&str] = &[""];
const PRODUCT: &[&str] = &["issuer/", "workload-api/", "broker/", "clients/"];

pub(crate) const ABSENCES: &[Absence] = &[
    Absence {
        name: "oauth-errors",
        reason: "one file speaks the protocol's errors, so that each refusal has one place that decides what a caller learns",
        seek: Seek::Literal(&[
            "invalid_request",
            "invalid_client",
            "invalid_grant",
            "unauthorized_client",
            "unsupported_grant_type",
            "invalid_scope",
            "invalid_target",
            "invalid_authorization_details",
            "invalid_dpop_proof",
            "use_dpop_nonce",
            "access_denied",
            "authorization_pending",
            "slow_down",
            "expired_token",
            "insufficient_user_authentication",
            "temporarily_unavailable",
        ]),
        within: &["issuer/", "workload-api/", "broker/src/"],
        except: &[
            ("issuer/src/words.rs", "the one file, which every door quotes"),
            (
                "broker/src/http/error.rs",
                "what the HTTP door itself refuses, and the page that explains each code",
            ),
            ("broker/src/dev/story/", "a client: it reads the codes that it expects"),
            ("broker/src/agent/link.rs", "a client: it reads the codes that it gets"),
        ],
        tests_too: false,
        broken_by: ("broker/src/http/token.rs", r#"fn f() -> &'static str { "invalid_grant" }"#),
    },
    Absence {
        name: "http-error-statuses",
        reason: "as for the OAuth codes: the status belongs to the code",
        seek: Seek::Code(&[
            "StatusCode::BAD_REQUEST",
            "StatusCode::UNAUTHORIZED",
            "StatusCode::FORBIDDEN",
            "StatusCode::NOT_FOUND",
            "StatusCode::METHOD_NOT_ALLOWED",
            "StatusCode::CONFLICT",
            "StatusCode::PAYLOAD_TOO_LARGE",
            "StatusCode::UNSUPPORTED_MEDIA_TYPE",
            "StatusCode::TOO_MANY_REQUESTS",
            "StatusCode::INTERNAL_SERVER_ERROR",
            "StatusCode::SERVICE_UNAVAILABLE",
            "StatusCode::GATEWAY_TIMEOUT",
            "StatusCode::BAD_GATEWAY",
            "StatusCode::from_u16",
        ]),
        within: &["issuer/", "workload-api/", "broker/src/"],
        except: &[("broker/src/http/error.rs", "the one file")],
        tests_too: false,
        broken_by: ("broker/src/http/admin.rs", "fn f() -> StatusCode { StatusCode::FORBIDDEN }"),
    },
    Absence {
        name: "grpc-statuses",
        reason: "one file of the Workload API maps refusals to the statuses of its specification",
        seek: Seek::Code(&[
            "tonic::Status",
            "tonic::Code",
            "Code::PermissionDenied",
            "Code::InvalidArgument",
        ]),
        within: PRODUCT,
        except: &[
            ("workload-api/src/error.rs", "the one file"),
            ("workload-api/src/proto/", "generated: it hands statuses on"),
            ("broker/src/commands/svid/endpoint.rs", "a client: it reads the statuses that it gets"),
            ("broker/src/commands/exchange/attested.rs", "a client, likewise"),
        ],
        tests_too: false,
        broken_by: ("workload-api/src/socket.rs", "use tonic::Status;"),
    },
    Absence {
        name: "attested-workloads",
        reason: "whoever says that a process was attested has asked the kernel: nothing else makes a workload",
        seek: Seek::Code(&["Workload::attested"]),
        within: EVERYWHERE,
        except: &[
            ("workload-api/src/attest", "who asks the kernel"),
            ("workload-api/src/fakes", "for tests; no program uses them"),
            (
                "issuer/src/node/authenticate.rs",
                "what a node's agent saw, once the node has proved itself: of that node alone",
            ),
        ],
        tests_too: false,
        broken_by: (
            "issuer/src/svid.rs",
            "fn f(n: SpiffeId, s: Selectors) -> Workload { Workload::attested(n, s) }",
        ),
    },
    Absence {
        name: "unsafe",
        reason: "memory safety is not traded for speed anywhere",
        seek: Seek::Code(&["unsafe"]),
        within: EVERYWHERE,
        except: &[],
        tests_too: true,
        broken_by: ("issuer/src/keys.rs", "fn f(p: *const u8) -> u8 { unsafe { *p } }"),
    },
    Absence {
        name: "clock",
        reason: "time is a parameter: what expires is tested by advancing a clock",
        seek: Seek::Code(&["SystemTime::now", "Instant::now", "SystemTime::UNIX_EPOCH.elapsed"]),
        within: PRODUCT,
        except: &[
            ("issuer/src/clock.rs", "the one clock"),
            ("broker/src/backends/oidc.rs", "tokio's clock, which its tests pause and advance"),
            ("clients/rust/src/clock.rs", "the client library's, which has no issuer beneath it"),
        ],
        tests_too: false,
        broken_by: ("issuer/src/decide.rs", "fn f() { let _ = std::time::Instant::now(); }"),
    },
    Absence {
        name: "entropy",
        reason: "randomness is a parameter: ids are reproducible in tests, and one place fails when the system has none",
        seek: Seek::Code(&["Uuid::now_v7", "Uuid::new_v4", "rand::fill", "rand::thread_rng", "getrandom"]),
        within: PRODUCT,
        except: &[
            ("issuer/src/clock.rs", "the one source"),
            ("issuer/call/src/nonce.rs", "the key of the nonces: nobody may choose it, a test neither"),
            ("clients/rust/src/clock.rs", "the client library's, which has no issuer beneath it"),
            ("broker/stand-ins/src/random.rs", "the stand-ins', which have no issuer beneath them"),
        ],
        tests_too: false,
        broken_by: ("issuer/src/issue.rs", "fn f() { let _ = uuid::Uuid::now_v7(); }"),
    },
    Absence {
        name: "concrete-backends",
        reason: "everything but the assembly sees a backend through the trait of the stage that asks",
        seek: Seek::Code(&["backends::"]),
        within: &["broker/src/"],
        except: &[
            ("broker/src/assemble", "the assembly, with a file of its own for AWS"),
            (
                "broker/src/commands/",
                "operators' commands work on the data folder of a broker that need not run",
            ),
        ],
        tests_too: false,
        broken_by: ("broker/src/http/token.rs", "use crate::backends::embedded::Store;"),
    },
    Absence {
        name: "registry-hosts",
        reason: "packages come through each tool's own configuration, so that mirrors and closed networks work",
        seek: Seek::Text(&[
            ("registry.", "npmjs"),
            ("registry.", "yarnpkg"),
            ("npm.", "pkg.github"),
            ("index.", "crates.io"),
            ("static.", "crates.io"),
            ("py", "pi.org"),
            ("files.", "pythonhosted"),
            ("proxy.", "golang.org"),
            ("deb.", "debian.org"),
            ("archive.", "ubuntu.com"),
            ("deb.", "nodesource.com"),
            ("\"resolved", "\":"),
        ]),
        within: EVERYWHERE,
        except: &[],
        tests_too: true,
        broken_by: ("test", concat!("npm ci --registry=https://registry.", "npmjs.org")),
    },
    Absence {
        name: "machine-paths",
        reason: "a clone works wherever it lies; nothing is read from outside the repository",
        seek: Seek::Text(&[
            ("/wo", "rk/"),
            ("/ro", "ot/"),
            ("/ho", "me/"),
            ("/Us", "ers/"),
            ("/tmp/", "brief"),
        ]),
        within: EVERYWHERE,
        except: &[],
        tests_too: true,
        broken_by: ("broker/src/main.rs", concat!("const PLACE: &str = \"/wo", "rk/main\";")),
    },
];

/// Which crates of the workspace a crate may depend on: dependencies point one way.
pub(crate) const DIRECTIONS: &[(&str, &[&str])] = &[
    ("issuer/call", &[]),
    ("issuer", &["deputize-call"]),
    ("workload-api", &["deputize-call", "deputize-issuer"]),
    ("clients/rust", &["deputize-call"]),
    // The guard's link authenticates to the broker and speaks HTTP as any client does: there is one such client.
    ("clients/guard", &["deputize-call", "deputize-client"]),
    // They stand outside, as whatever they stand for does.
    ("broker/stand-ins", &["deputize-call", "deputize-client"]),
    (
        "broker",
        &[
            "deputize-call",
            "deputize-issuer",
            "deputize-workload-api",
            "deputize-guard",
            "deputize-client",
            "deputize-stand-ins",
        ],
    ),
    // From outside: the wire, the socket and the client libraries, never the core.
    ("conformance", &["deputize-call", "deputize-client", "deputize-guard"]),
];

/// Third-party crates (by prefix) that a crate must not depend on, and why.
pub(crate) const FORBIDDEN_CRATES: &[(&str, &[&str], &str)] = &[
    (
        "issuer/call",
        &["tokio", "axum", "hyper", "reqwest", "cedar", "redis", "aws-sdk", "tonic"],
        "a verifier needs no I/O and no policy engine",
    ),
    (
        "issuer",
        &["axum", "hyper", "reqwest", "redis", "aws-sdk", "aws-config", "tonic"],
        "the core waits for the network behind traits only",
    ),
    ("clients/guard", &["cedar", "redis", "aws-sdk"], "a guard enforces what was decided"),
];

/// Names of files, folders and modules that say nothing of their purpose.
pub(crate) const FORBIDDEN_NAMES: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "misc", "shared", "stuff"];

/// Limits of size, in lines.
pub(crate) const MAX_FILE_LINES: usize = 400;
pub(crate) const MAX_FUNCTION_LINES: usize = 70;

/// Files, and functions (`path::name`), that are better long, and why.
pub(crate) const BETTER_LONG: &[(&str, &str)] = &[
    ("workload-api/src/proto/workload.rs", "generated"),
    ("workload-api/src/proto/workload.rs::call", "generated"),
    ("workload-api/src/proto/secrets.rs", "generated"),
    ("workload-api/src/proto/secrets.rs::call", "generated"),
];
