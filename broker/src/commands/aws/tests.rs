//! Where `deputize aws creds` looks. What it prints is seen from outside (`conformance/tests/guard_aws.rs`).

use super::creds::{Args, Place};
use crate::commands::exit::{CommandError, Exit};
use clap::Parser as _;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn place(line: &[&str], variables: &[(&str, &str)]) -> Result<Place, CommandError> {
    let line = Line::try_parse_from([&["creds"], line].concat()).unwrap();
    let variable =
        |name: &str| variables.iter().find(|(each, _)| *each == name).map(|(_, value)| (*value).to_owned());
    Place::of(&line.args, variable)
}

const HERE: &str = "http://127.0.0.1:4000/aws/x";

#[test]
fn the_command_line_goes_before_the_environment_and_ours_before_awss() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "of-the-line\n").unwrap();
    let line = ["--uri", "http://127.0.0.1:4000/aws/line", "--authorization-file", file.to_str().unwrap()];
    let ours = [("DEPUTIZE_AWS_CREDENTIALS_URI", HERE), ("DEPUTIZE_AWS_AUTHORIZATION", "ours")];
    let aws = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://[::1]:4000/aws/y"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "awss"),
    ];
    let all = [&ours[..], &aws].concat();
    for (line, variables, uri, secret) in [
        (&line[..], &all[..], "http://127.0.0.1:4000/aws/line", "of-the-line"),
        (&[], &all, HERE, "ours"),
        (&[], &aws, "http://[::1]:4000/aws/y", "awss"),
    ] {
        let found = place(line, variables).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((found.uri.as_str(), found.authorization.as_str()), (uri, secret));
    }
}

#[test]
fn the_secret_goes_nowhere_but_to_this_machine() {
    let with = |uri: &str, secret: &str| {
        place(&[], &[("DEPUTIZE_AWS_CREDENTIALS_URI", uri), ("DEPUTIZE_AWS_AUTHORIZATION", secret)])
    };
    assert!(with(HERE, "secret").is_ok());
    for (uri, secret) in [
        ("http://169.254.170.2/creds", "secret"),
        ("http://localhost:4000/aws/x", "secret"),
        ("https://127.0.0.1:4000/aws/x", "secret"),
        ("http://user@127.0.0.1:4000/aws/x", "secret"),
        ("http://127.0.0.1.evil.example/aws/x", "secret"),
        ("127.0.0.1:4000", "secret"),
        (HERE, ""),
        (HERE, "two words"),
        (HERE, "line\r\nbreak"),
    ] {
        let refused = with(uri, secret).err().unwrap_or_else(|| panic!("accepted: {uri} {secret:?}"));
        assert_eq!(refused.exit, Exit::Usage);
    }
    // The address of one and the secret of the other belong to two calls.
    let mixed = [("DEPUTIZE_AWS_CREDENTIALS_URI", HERE), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "awss")];
    assert_eq!(place(&[], &mixed).err().unwrap().exit, Exit::Usage);
    assert_eq!(place(&[], &[]).err().unwrap().exit, Exit::Usage);
}
