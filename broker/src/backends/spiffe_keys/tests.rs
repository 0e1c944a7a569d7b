use deputize_issuer::authority::Stage;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use super::*;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn making() -> Making {
    Making { ttl_seconds: DAY, upstream: None }
}

fn open(data: &Path, now: u64) -> SpiffeRing {
    SpiffeRing::open(data, &domain(), making(), now).unwrap()
}

fn stages(data: &Path, kind: Kind) -> Vec<Stage> {
    let kept = SpiffeKeys::existing(data).read().unwrap().unwrap();
    let of_kind = kept.register.members().iter().filter(|member| member.kind() == kind);
    of_kind.map(|member| member.life.stage).collect()
}

fn private_keys(data: &Path) -> usize {
    let files = fs::read_dir(data.join("keys/spiffe")).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "p8")).count()
}

fn active(ring: &SpiffeRing) -> (String, String) {
    let ring = ring.authorities().ring().clone();
    (ring.active.certificate().id(), ring.jwt.kid().to_owned())
}

#[test]
fn the_first_authorities_are_made_once_and_read_back() {
    let data = tempfile::tempdir().unwrap();
    let first = open(data.path(), NOW);
    let again = open(data.path(), NOW + 60);
    assert_eq!(active(&first), active(&again));
    assert_eq!(
        first.authorities().ring().bundle.sequence,
        again.authorities().ring().bundle.sequence,
        "a restart alone is no change"
    );
    assert_eq!(private_keys(data.path()), 2);
    for file in fs::read_dir(data.path().join("keys/spiffe")).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "its owner's alone");
    }
    let kids: Vec<_> =
        first.jwt_keys().ring().published.iter().map(|key| key.kid().unwrap().to_owned()).collect();
    assert_eq!(kids, [active(&first).1]);
}

#[test]
fn with_time_authorities_follow_each_other_and_private_keys_go() {
    let data = tempfile::tempdir().unwrap();
    let ring = open(data.path(), NOW);
    let (first, mut last) = (active(&ring), 0);
    let mut changes = ring.authorities().changes();
    for (after, expected, keys) in [
        (0, vec![Stage::Active], 2),
        (DAY / 2, vec![Stage::Active, Stage::Prepared], 4),
        (DAY * 5 / 6, vec![Stage::Old, Stage::Active], 2),
        (DAY, vec![Stage::Active, Stage::Prepared], 4),
    ] {
        ring.turn(NOW + after).unwrap();
        assert_eq!(stages(data.path(), Kind::X509), expected, "after {after} seconds");
        assert_eq!(stages(data.path(), Kind::Jwt), expected, "after {after} seconds");
        assert_eq!(private_keys(data.path()), keys, "after {after} seconds");
        let bundle = ring.authorities().ring().bundle.clone();
        assert_eq!(bundle.x509_authorities.len(), expected.len());
        assert_eq!(bundle.jwt_authorities.iter().count(), expected.len());
        assert_eq!(ring.jwt_keys().ring().published.iter().count(), expected.len());
        assert!(after == 0 || bundle.sequence > last, "the number of the bundle grows");
        assert_eq!(changes.has_changed().unwrap(), after > 0);
        changes.mark_unchanged();
        last = bundle.sequence;
    }
    assert_ne!(active(&ring).0, first.0);
    assert_ne!(active(&ring).1, first.1);
    let restarted = open(data.path(), NOW + DAY);
    assert_eq!(active(&restarted), active(&ring));
    assert_eq!(restarted.authorities().ring().bundle.sequence, last, "it does not fall with a restart");
}

#[test]
fn a_running_broker_takes_what_commands_do() {
    let data = tempfile::tempdir().unwrap();
    let ring = open(data.path(), NOW);
    let (keys, first) = (SpiffeKeys::existing(data.path()), active(&ring).0);
    keys.prepare(Kind::X509, NOW, None).unwrap();
    assert!(matches!(keys.prepare(Kind::X509, NOW, None), Err(NotDone::NotNow(NotNow::AlreadyPrepared))));
    ring.turn(NOW).unwrap();
    assert_eq!(ring.authorities().ring().bundle.x509_authorities.len(), 2);
    assert_eq!(active(&ring).0, first, "prepared, and signs nothing");
    let later = NOW + 600;
    assert!(keys.activate(Kind::X509, NOW + 599, false).is_err(), "not everybody knows it");
    keys.activate(Kind::X509, later, false).unwrap();
    ring.turn(later).unwrap();
    assert_ne!(active(&ring).0, first);
    assert!(keys.revoke(&first, later).is_err(), "what it signed is in use");
    keys.taint(&first, later).unwrap();
    ring.turn(later).unwrap();
    assert_eq!(ring.authorities().ring().tainted.len(), 1);
    assert_eq!(ring.authorities().ring().bundle.x509_authorities.len(), 2, "tainted, and still trusted");
    keys.revoke(&first, later).unwrap();
    ring.turn(later).unwrap();
    assert!(ring.authorities().ring().tainted.is_empty());
    assert_eq!(ring.authorities().ring().bundle.x509_authorities.len(), 1);
}

#[test]
fn an_older_file_put_back_brings_back_nothing_and_no_lower_number() {
    let data = tempfile::tempdir().unwrap();
    let ring = open(data.path(), NOW);
    let (keys, file) = (SpiffeKeys::existing(data.path()), data.path().join("keys/spiffe/authorities.json"));
    keys.prepare(Kind::X509, NOW, None).unwrap();
    ring.turn(NOW).unwrap();
    let older = fs::read(&file).unwrap();
    keys.replace_compromised(Kind::X509, NOW + 1).unwrap();
    ring.turn(NOW + 1).unwrap();
    let (newer, signs) = (fs::read(&file).unwrap(), active(&ring));
    let sequence = ring.authorities().ring().bundle.sequence;
    crate::backends::key_files::replace(&file, &older).unwrap();
    // Also when something is due, which counts on from where the file stands.
    for after in [2, DAY * 5 / 6] {
        let refused = ring.turn(NOW + after).unwrap_err().to_string();
        assert!(refused.contains("older than what is in use"), "{refused}");
        assert_eq!((ring.authorities().ring().bundle.sequence, active(&ring)), (sequence, signs.clone()));
        assert_eq!(fs::read(&file).unwrap(), older, "nothing was made of it");
    }
    crate::backends::key_files::replace(&file, &newer).unwrap();
    ring.turn(NOW + 3).unwrap();
    assert_eq!((ring.authorities().ring().bundle.sequence, active(&ring)), (sequence, signs));
}

#[test]
fn compromised_keys_are_replaced_at_once_and_tainted() {
    let data = tempfile::tempdir().unwrap();
    let ring = open(data.path(), NOW);
    let first = active(&ring);
    let keys = SpiffeKeys::existing(data.path());
    keys.prepare(Kind::X509, NOW, None).unwrap();
    keys.replace_compromised(Kind::X509, NOW).unwrap();
    assert_eq!(
        stages(data.path(), Kind::X509),
        [Stage::Tainted, Stage::Active],
        "nor is the prepared one kept"
    );
    keys.replace_compromised(Kind::Jwt, NOW).unwrap();
    ring.turn(NOW).unwrap();
    assert_ne!(active(&ring).0, first.0);
    assert_ne!(active(&ring).1, first.1);
    assert_eq!(private_keys(data.path()), 2, "those that others have are no use any more");
}

#[test]
fn what_is_not_as_it_should_be_is_refused_and_nothing_changes() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("keys/spiffe");
    let ring = open(data.path(), NOW);
    let before = active(&ring);
    let refused = |error: &str| {
        let found = SpiffeRing::open(data.path(), &domain(), making(), NOW).unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    };

    let other = SpiffeRing::open(data.path(), &TrustDomain::new("example.com").unwrap(), making(), NOW);
    assert!(other.unwrap_err().to_string().contains("another trust domain needs another data_dir"));

    let document = folder.join("authorities.json");
    fs::set_permissions(&document, fs::Permissions::from_mode(0o644)).unwrap();
    refused("chmod 600");
    fs::set_permissions(&document, fs::Permissions::from_mode(0o600)).unwrap();

    let good = fs::read_to_string(&document).unwrap();
    for (from, to) in [
        ("\"v\": 1", "\"v\": 2"),
        ("\"active\"", "\"actve\""),
        (before.0.as_str(), "00"),
        ("example.org", "example.net"),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&document, good.replacen(from, to, 1)).unwrap();
        assert!(SpiffeRing::open(data.path(), &domain(), making(), NOW).is_err(), "{to}");
        assert!(ring.turn(NOW).is_err(), "{to}");
        assert_eq!(active(&ring), before, "the ring stays as it was");
    }
    fs::write(&document, &good).unwrap();

    let key = folder.join(format!("x509-{}.p8", before.0));
    let other = folder.join(format!("jwt-{}.p8", before.1));
    let (own, another) = (fs::read(&key).unwrap(), fs::read(&other).unwrap());
    fs::write(&key, &another).unwrap();
    refused("the key is not that of the certificate");
    fs::write(&key, &own).unwrap();
    assert_eq!(active(&open(data.path(), NOW)), before);
}

#[test]
fn two_do_not_change_authorities_at_the_same_time() {
    let data = tempfile::tempdir().unwrap();
    let _ring = open(data.path(), NOW);
    let keys = SpiffeKeys::existing(data.path());
    let held = keys.lock().unwrap();
    let refused = keys.prepare(Kind::X509, NOW, None).unwrap_err().to_string();
    assert!(refused.contains("another process is changing the authorities"), "{refused}");
    drop(held);
    keys.prepare(Kind::X509, NOW, None).unwrap();
}

#[test]
fn under_an_upstream_authority_its_root_is_the_bundle() {
    let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (upstream, root) = upstream(files.path());
    let making = Making { ttl_seconds: DAY, upstream: Some(upstream.clone()) };
    let ring = SpiffeRing::open(data.path(), &domain(), making.clone(), NOW).unwrap();
    let keys = SpiffeKeys::existing(data.path());
    keys.prepare(Kind::X509, NOW, None).unwrap();
    ring.turn(NOW).unwrap();
    let held = ring.authorities().ring().clone();
    assert_eq!(held.bundle.x509_authorities, [root], "two authorities, one anchor");
    assert_eq!(held.active.certificate().intermediates().len(), 1);

    fs::set_permissions(&upstream.key_file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = SpiffeRing::open(tempfile::tempdir().unwrap().path(), &domain(), making, NOW).unwrap_err();
    assert!(refused.to_string().contains("chmod 600"));
}

/// A root on disk.
fn upstream(folder: &Path) -> (UpstreamFiles, Vec<u8>) {
    let (key, mut parameters) = (KeyPair::generate().unwrap(), CertificateParams::default());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_before = epoch + Duration::from_secs(NOW - DAY);
    parameters.not_after = epoch + Duration::from_secs(NOW + 30 * DAY);
    parameters.distinguished_name.push(DnType::CommonName, "root");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = parameters.self_signed(&key).unwrap();
    let files = UpstreamFiles { certificate_file: folder.join("ca.pem"), key_file: folder.join("ca.key") };
    fs::write(&files.certificate_file, root.pem()).unwrap();
    write_new(&files.key_file, key.serialize_pem().as_bytes()).unwrap();
    (files, root.der().to_vec())
}
