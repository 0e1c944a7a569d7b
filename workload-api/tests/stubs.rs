//! The stubs in the tree are those of `proto/*.proto`.
//!
//! After a change of one: `MAKE_STUBS=1 cargo test -p deputize-workload-api --test stubs`.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

use protox::prost::Message as _;
use std::path::{Path, PathBuf};

#[test]
fn the_stubs_are_those_of_the_protos() {
    let made = tempfile::tempdir().unwrap();
    let folder = root().join("proto");
    let compiled = |name: &str| protox::compile([name], [&folder]).unwrap();
    let descriptor = |name: &str| {
        let mut bare = compiled(name);
        bare.file.iter_mut().for_each(|file| file.source_code_info = None);
        bare.encode_to_vec()
    };
    let set = protox::compile(["workload.proto", "exchange.proto"], [&folder]).unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .bytes(".")
        .codec_path("crate::rpc::SmallCodec")
        .skip_debug([
            ".X509SVID",
            ".JWTSVID",
            ".ValidateJWTSVIDRequest",
            ".deputize.exchange.v1.ExchangeRequest",
            ".deputize.exchange.v1.ExchangeResponse",
        ])
        .out_dir(made.path())
        .compile_fds(set)
        .unwrap();
    // A file of no package has no name.
    for (name, made_as) in [("workload", "_"), ("exchange", "deputize.exchange.v1")] {
        let stubs = std::fs::read(made.path().join(format!("{made_as}.rs"))).unwrap();
        let descriptor = descriptor(&format!("{name}.proto"));
        let place = |kind: &str| root().join("src/proto").join(name).with_extension(kind);
        if std::env::var_os("MAKE_STUBS").is_some() {
            std::fs::write(place("rs"), &stubs).unwrap();
            std::fs::write(place("bin"), &descriptor).unwrap();
        }
        assert_eq!(String::from_utf8(stubs).unwrap(), std::fs::read_to_string(place("rs")).unwrap());
        assert_eq!(descriptor, std::fs::read(place("bin")).unwrap());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
