//! The stubs in the tree are those of the files in `proto`.
//!
//! After a change of one: `MAKE_STUBS=1 cargo test -p deputize-workload-api --test stubs`.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

use protox::prost::Message as _;
use std::path::{Path, PathBuf};

/// One file of `proto`, and what is made of it.
struct Stubs {
    /// `NAME.proto` becomes `src/proto/NAME.rs` (and `NAME.bin`).
    name: &'static str,
    /// Its package; a file of none has no name.
    package: &'static str,
    /// Messages that show keys or tokens: what they print is written by hand.
    secret: &'static [&'static str],
    /// Whether it is told to whoever asks by reflection.
    is_reflected: bool,
}

#[test]
fn the_stubs_are_those_of_the_protos() {
    for stubs in ALL {
        check(stubs);
    }
}

fn check(stubs: &Stubs) {
    let made = tempfile::tempdir().unwrap();
    let set = protox::compile([format!("{}.proto", stubs.name)], [root().join("proto")]).unwrap();
    let mut bare = set.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .bytes(".")
        .codec_path("crate::rpc::SmallCodec")
        .skip_debug(stubs.secret)
        .out_dir(made.path())
        .compile_fds(set)
        .unwrap();
    let package = if stubs.package.is_empty() { "_" } else { stubs.package };
    compare(
        &format!("{}.rs", stubs.name),
        &std::fs::read(made.path().join(format!("{package}.rs"))).unwrap(),
    );
    if stubs.is_reflected {
        compare(&format!("{}.bin", stubs.name), &bare.encode_to_vec());
    }
}

fn compare(name: &str, made: &[u8]) {
    let kept = root().join("src/proto").join(name);
    if std::env::var_os("MAKE_STUBS").is_some() {
        std::fs::write(&kept, made).unwrap();
    }
    let text = String::from_utf8_lossy;
    assert_eq!(text(made), text(&std::fs::read(kept).unwrap()), "{name}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

const ALL: &[Stubs] = &[
    Stubs {
        name: "workload",
        package: "",
        secret: &[".X509SVID", ".JWTSVID", ".ValidateJWTSVIDRequest"],
        is_reflected: true,
    },
    Stubs {
        name: "exchange",
        package: "deputize.exchange.v1",
        secret: &[".deputize.exchange.v1.ExchangeRequest", ".deputize.exchange.v1.ExchangeResponse"],
        is_reflected: true,
    },
    Stubs {
        name: "secrets",
        package: "envoy.service.secret.v3",
        secret: &[".envoy.service.secret.v3.DataSource", ".envoy.service.secret.v3.Packed"],
        is_reflected: false,
    },
];
