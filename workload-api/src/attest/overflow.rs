//! Ids that stand for every id that our user namespace has no name for.

/// What the kernel shows in the place of users and groups that are not mapped here (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Overflow {
    /// Reads how it is for our own process, which does not change while it runs.
    pub(crate) fn ours() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            uid: stand_in(&read("/proc/self/uid_map"), &read("/proc/sys/kernel/overflowuid")),
            gid: stand_in(&read("/proc/self/gid_map"), &read("/proc/sys/kernel/overflowgid")),
        }
    }

    /// Whether this number is one user and no other.
    pub(crate) fn is_one_user(self, uid: u32) -> bool {
        self.uid != Some(uid)
    }

    /// Whether this number is one group and no other.
    pub(crate) fn is_one_group(self, gid: u32) -> bool {
        self.gid != Some(gid)
    }
}

/// The number that stands for strangers; none where every id is mapped to itself, as outside of all containers: there
/// `nobody` is a user like others.
fn stand_in(map: &str, overflow: &str) -> Option<u32> {
    let mut words = map.split_ascii_whitespace();
    let whole = [Some("0"), Some("0"), Some("4294967295"), None].into_iter().all(|word| words.next() == word);
    if whole { None } else { Some(overflow.trim().parse().unwrap_or(DEFAULT_OVERFLOW)) }
}

const DEFAULT_OVERFLOW: u32 = 65_534;

#[cfg(test)]
impl Overflow {
    /// Of a namespace that is not ours.
    pub(crate) fn of(uid: Option<u32>, gid: Option<u32>) -> Self {
        Self { uid, gid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_every_id_is_mapped_nobody_is_a_user() {
        assert_eq!(stand_in("         0          0 4294967295\n", "65534\n"), None);
        for map in [
            "",
            "         0       1000          1\n",
            "         0     100000      65536\n",
            "         0          0 4294967294\n",
            "         0          0 4294967295\n 1 1 1\n",
            "         0          1 4294967295\n",
        ] {
            assert_eq!(stand_in(map, "65534\n"), Some(65_534), "{map:?}");
        }
        assert_eq!(stand_in("0 100000 65536", "1234\n"), Some(1234));
        assert_eq!(stand_in("0 100000 65536", ""), Some(65_534), "unknown: the kernel's default");
    }

    #[test]
    fn a_stand_in_is_nobody_in_particular() {
        let contained = Overflow::of(Some(65_534), Some(65_533));
        assert!(!contained.is_one_user(65_534) && contained.is_one_user(65_533));
        assert!(!contained.is_one_group(65_533) && contained.is_one_group(65_534));
    }
}
