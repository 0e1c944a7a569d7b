//! The stubs in the tree are those of `proto/workload.proto`.
//!
//! After a change of the `.proto`: `MAKE_STUBS=1 cargo test -p deputize-workload-api --test stubs`.

use protox::prost::Message as _;
use std::path::{Path, PathBuf};

#[test]
fn the_stubs_are_those_of_the_proto() {
    let made = tempfile::tempdir().unwrap();
    let folder = root().join("proto");
    let set = protox::compile(["workload.proto"], [folder]).unwrap();
    let mut bare = set.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    let descriptor = bare.encode_to_vec();
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .bytes(".")
        .codec_path("crate::rpc::SmallCodec")
        .skip_debug([".X509SVID", ".JWTSVID", ".ValidateJWTSVIDRequest"])
        .out_dir(made.path())
        .compile_fds(set)
        .unwrap();
    // A file of no package has no name.
    let stubs = std::fs::read(made.path().join("_.rs")).unwrap();
    if std::env::var_os("MAKE_STUBS").is_some() {
        std::fs::write(root().join("src/proto/workload.rs"), &stubs).unwrap();
        std::fs::write(root().join("src/proto/workload.bin"), &descriptor).unwrap();
    }
    assert_eq!(
        String::from_utf8(stubs).unwrap(),
        std::fs::read_to_string(root().join("src/proto/workload.rs")).unwrap()
    );
    assert_eq!(descriptor, std::fs::read(root().join("src/proto/workload.bin")).unwrap());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
