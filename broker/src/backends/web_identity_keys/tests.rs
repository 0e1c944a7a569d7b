use super::*;
use std::os::unix::fs::PermissionsExt as _;

const NOW: u64 = 1_795_253_400;
const DAY: u64 = 24 * 3600;
const ES256: SigningAlgorithm = SigningAlgorithm::ES256;
const RS256: SigningAlgorithm = SigningAlgorithm::RS256;

struct Folder {
    data: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap() }
    }
    fn open(&self, now: u64) -> WebIdentityRing {
        WebIdentityRing::open(self.data.path(), ES256, now).unwrap()
    }
    fn keys(&self) -> WebIdentityKeys {
        WebIdentityKeys::existing(self.data.path())
    }
    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join("keys/web-identity").join(name)
    }
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
    fn states(&self, algorithm: SigningAlgorithm, now: u64) -> Vec<State> {
        let stored = self.keys().read().unwrap();
        stored.iter().filter(|key| key.algorithm == algorithm).map(|key| key.state(&stored, now)).collect()
    }
}

fn signing(ring: &WebIdentityRing) -> String {
    ring.source().ring().signing_kid().to_owned()
}

fn published(ring: &WebIdentityRing) -> Vec<String> {
    ring.source().ring().published.iter().map(|key| key.kid().unwrap().to_owned()).collect()
}

#[test]
fn the_first_keys_sign_at_once_and_are_read_back() {
    let folder = Folder::new();
    let first = folder.open(NOW);
    assert_eq!(folder.names(), ["es256-0.p8", "rs256-0.p8"]);
    assert_eq!(folder.states(ES256, NOW), [State::Signing]);
    assert_eq!(published(&first).len(), 2, "both algorithms");
    let again = folder.open(NOW + DAY);
    assert_eq!((signing(&again), published(&again)), (signing(&first), published(&first)));
    let rsa = WebIdentityRing::open(folder.data.path(), RS256, NOW).unwrap();
    assert_ne!(signing(&rsa), signing(&first));
    let mode = fs::metadata(folder.path("es256-0.p8")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A clock that stands before the keys' time, or was wrong once, does not leave us without a key.
    assert_eq!(signing(&folder.open(1)), signing(&first));
}

#[test]
fn a_new_key_is_published_a_day_before_it_signs_and_a_day_after() {
    let folder = Folder::new();
    let ring = folder.open(NOW);
    let first = signing(&ring);
    let from = NOW + DAY;
    folder.keys().rotate(NOW, from).unwrap();

    ring.turn(NOW).unwrap();
    assert_eq!((signing(&ring), published(&ring).len()), (first.clone(), 4), "announced, both algorithms");
    assert_eq!(folder.states(ES256, NOW), [State::Signing, State::Announced]);
    ring.turn(from - 1).unwrap();
    assert_eq!(signing(&ring), first, "not a second early");

    ring.turn(from).unwrap();
    let second = signing(&ring);
    assert_ne!(second, first);
    assert!(published(&ring).contains(&first), "what it signed may still be checked");
    assert!(!folder.path("es256-0.p8").exists(), "a key that signs no more is destroyed");
    assert_eq!(folder.states(ES256, from), [State::Retired { since_seconds: from }, State::Signing]);

    ring.turn(from + DAY - 1).unwrap();
    assert!(published(&ring).contains(&first));
    ring.turn(from + DAY).unwrap();
    assert!(!published(&ring).contains(&first) && published(&ring).contains(&second));
    assert_eq!(signing(&folder.open(from + DAY)), second, "and a restart sees the same");
    assert_eq!(published(&folder.open(from + DAY)), published(&ring));

    ring.turn(from + REMEMBERED_SECONDS).unwrap();
    assert_eq!(folder.names(), [format!("es256-{from}.p8"), format!("rs256-{from}.p8")], "forgotten");
}

#[test]
fn a_key_that_was_announced_too_late_or_twice_is_refused() {
    let folder = Folder::new();
    folder.open(NOW);
    assert!(folder.keys().rotate(NOW, NOW + DAY - 1).is_err());
    assert!(folder.keys().rotate(NOW, NOW).is_err());
    assert_eq!(folder.names().len(), 2);
    folder.keys().rotate(NOW, NOW + DAY).unwrap();
    let refused = folder.keys().rotate(NOW + 1, NOW + 2 * DAY).unwrap_err();
    assert!(refused.to_string().contains("announced already"), "{refused}");
    // A rotation that broke off half-way is completed.
    fs::remove_file(folder.path(&format!("rs256-{}.p8", NOW + DAY))).unwrap();
    folder.keys().rotate(NOW + 1, NOW + 2 * DAY).unwrap();
    assert_eq!(folder.states(ES256, NOW + 1), [State::Signing, State::Announced]);
    assert_eq!(folder.states(RS256, NOW + 1), [State::Signing, State::Announced]);
}

#[test]
fn compromised_keys_go_at_once() {
    let folder = Folder::new();
    let ring = folder.open(NOW);
    folder.keys().rotate(NOW, NOW + DAY).unwrap();
    ring.turn(NOW + DAY).unwrap();
    let known = published(&ring);
    assert_eq!(known.len(), 4);
    folder.keys().replace_compromised(NOW + DAY + 60).unwrap();
    ring.turn(NOW + DAY + 60).unwrap();
    assert!(!known.contains(&signing(&ring)));
    assert!(published(&ring).iter().all(|kid| !known.contains(kid)) && published(&ring).len() == 2);
    let privates = folder.names().into_iter().filter(|name| name.ends_with(".p8")).count();
    assert_eq!(privates, 2);
}

#[test]
fn a_broker_that_turns_all_the_while_keeps_no_compromised_key() {
    let folder = Folder::new();
    let ring = folder.open(NOW);
    folder.keys().rotate(NOW, NOW + DAY).unwrap();
    ring.turn(NOW + DAY).unwrap();
    let (known, now) = (published(&ring), NOW + DAY + 60);
    let turns = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let command = scope.spawn(|| folder.keys().replace_compromised(now));
        while !command.is_finished() {
            // In the midst of it there may be no key; that is one turn that fails.
            let _ = ring.turn(now);
            turns.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        command.join().unwrap().unwrap();
    });
    assert!(turns.into_inner() > 0);
    ring.turn(now).unwrap();
    assert!(published(&ring).iter().all(|kid| !known.contains(kid)) && published(&ring).len() == 2);
    let names = folder.names();
    assert_eq!(names.iter().filter(|name| name.ends_with(".p8")).count(), 2, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.ends_with(".retired.json")).count(), 4, "{names:?}");
}

#[test]
fn what_was_withdrawn_stays_so_whoever_comes_last() {
    let folder = Folder::new();
    let ring = folder.open(NOW);
    folder.keys().rotate(NOW, NOW + DAY).unwrap();
    let (now, looked) = (NOW + DAY, folder.keys().read().unwrap());
    // The broker retires the first keys after the command has looked.
    ring.turn(now).unwrap();
    let before = (signing(&ring), published(&ring));
    assert!(folder.path("es256-0.retired.json").exists() && before.1.len() == 4);
    folder.keys().withdraw(&looked, now).unwrap();
    let withdrawn = [State::Withdrawn { since_seconds: now - DAY }; 2];
    assert_eq!((folder.states(ES256, now), folder.states(RS256, now)), (withdrawn.into(), withdrawn.into()));
    // The broker goes on with what it saw before.
    folder.keys().tidy(&looked, now).unwrap();
    assert_eq!((folder.states(ES256, now), folder.states(RS256, now)), (withdrawn.into(), withdrawn.into()));
    assert!(folder.names().iter().all(|name| name.ends_with(".retired.json")), "{:?}", folder.names());
    // A turn before the new keys are there changes nothing; one after takes them.
    assert!(ring.turn(now).is_err());
    assert_eq!((signing(&ring), published(&ring)), before);
    folder.keys().replace_compromised(now + 1).unwrap();
    ring.turn(now + 1).unwrap();
    assert!(published(&ring).iter().all(|kid| !before.1.contains(kid)) && published(&ring).len() == 2);
}

#[test]
fn keys_are_not_replaced_twice_in_one_second() {
    let folder = Folder::new();
    let ring = folder.open(NOW);
    folder.keys().replace_compromised(NOW + 60).unwrap();
    ring.turn(NOW + 60).unwrap();
    let before = (folder.names(), published(&ring));
    let refused = folder.keys().replace_compromised(NOW + 60).unwrap_err();
    assert!(refused.to_string().contains("run it again"), "{refused}");
    ring.turn(NOW + 60).unwrap();
    assert_eq!((folder.names(), published(&ring)), before);
    folder.keys().replace_compromised(NOW + 61).unwrap();
    ring.turn(NOW + 61).unwrap();
    assert!(published(&ring).iter().all(|kid| !before.1.contains(kid)));
}

#[test]
fn both_halves_of_a_key_are_one_key_that_is_retired() {
    let folder = Folder::new();
    let ring = folder.open(NOW);
    let saved = fs::read(folder.path("es256-0.p8")).unwrap();
    folder.keys().rotate(NOW, NOW + DAY).unwrap();
    ring.turn(NOW + DAY).unwrap();
    // As if the process had died between the two steps.
    write_new(&folder.path("es256-0.p8"), &saved).unwrap();
    assert_eq!(folder.states(ES256, NOW + DAY).len(), 2);
    assert_eq!(published(&folder.open(NOW + DAY)).len(), 4);
}

#[test]
fn what_cannot_be_trusted_is_refused_and_the_running_ring_stays() {
    let folder = Folder::new();
    let ring = folder.open(NOW);
    let before = (signing(&ring), published(&ring));
    let later = folder.path(&format!("es256-{}.p8", NOW - 5));
    for (bytes, mode) in [
        (b"no key".to_vec(), 0o600),
        (fs::read(folder.path("rs256-0.p8")).unwrap(), 0o600),
        (fs::read(folder.path("es256-0.p8")).unwrap(), 0o640),
    ] {
        fs::write(&later, bytes).unwrap();
        fs::set_permissions(&later, fs::Permissions::from_mode(mode)).unwrap();
        assert!(folder.keys().read().is_err());
        assert!(ring.turn(NOW).is_err());
        assert_eq!((signing(&ring), published(&ring)), before);
        fs::remove_file(&later).unwrap();
    }
    // Names that mean no key are passed by.
    for name in ["es256-05.p8", "es256-+5.p8", "es512-5.p8", "es256-5.draft", "es256-5.p8.old", "notes.txt"] {
        fs::write(folder.path(name), "x").unwrap();
    }
    ring.turn(NOW).unwrap();
    assert_eq!((signing(&ring), published(&ring)), before);
}

#[test]
fn the_algorithm_can_change_without_a_wait() {
    let folder = Folder::new();
    let ring = folder.open(NOW);
    let (first, mut set) = (signing(&ring), published(&ring));
    ring.sign_with(RS256);
    ring.turn(NOW).unwrap();
    assert_ne!(signing(&ring), first);
    let mut now = published(&ring);
    set.sort();
    now.sort();
    assert_eq!(now, set, "the set is what it was");
}
